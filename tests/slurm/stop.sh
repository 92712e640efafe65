#!/bin/bash
# End what start.sh started, its jobs first: stop.sh FOLDER
folder=$(realpath "$1"); export SLURM_CONF=$folder/slurm.conf
scancel --full -p low 2>/dev/null; scancel --full -p high 2>/dev/null
for _ in $(seq 100); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
for name in slurmd slurmctld munged; do
  pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
  kill "$pid" 2>/dev/null
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill -9 "$pid" 2>/dev/null
done
exit 0
