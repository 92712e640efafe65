#!/bin/bash
# Start a Slurm of one node, as root, from Debian's packages (munge slurmctld slurmd slurm-client),
# without systemd: start.sh FOLDER. Two partitions: jobs of `high` preempt those of `low`.
set -eu
folder=$(realpath "$1"); host=$(hostname -s)
mkdir -p "$folder"/{ctld,d,log,bin}; chmod 700 "$folder"
cat > "$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=3600
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/ctld
SlurmdSpoolDir=$folder/d
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
END
# What submitit asks sacct for, from the controller's memory: there is no accounting here.
cat > "$folder/bin/sacct" <<'END'
#!/bin/sh
echo 'JobID|State|NodeList'
scontrol -o show jobs | awk '{
  delete f
  for (i = 1; i <= NF; i++) { p = index($i, "="); k = substr($i, 1, p - 1); if (!(k in f)) f[k] = substr($i, p + 1) }
  id = f["ArrayJobId"] != "" ? f["ArrayJobId"] "_" f["ArrayTaskId"] : f["JobId"]
  if (f["JobId"] != "") print id "|" f["JobState"] "|" f["NodeList"]
}'
END
chmod +x "$folder/bin/sacct"
export SLURM_CONF=$folder/slurm.conf
head -c 128 /dev/urandom > "$folder/munge.key"; chmod 600 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
slurmctld -c; slurmd
for _ in $(seq 100); do
  [ "$(sinfo -h -p low -o %t 2>/dev/null)" = idle ] && exit 0
  sleep 0.2
done
echo "the node did not come up; see $folder/log" >&2; exit 1
