"""Explicit Runge-Kutta methods with equal steps: their names, stages and weights."""

Stage = tuple[float, tuple[float, ...]]  # its time in the step, and weights of the stages before

# Of each method its stages, and their weights in the step (Hairer, Norsett & Wanner, ch. II.1).
METHODS: dict[str, tuple[tuple[Stage, ...], tuple[float, ...]]] = {
    "euler": (((0, ()),), (1,)),
    "midpoint": (((0, ()), (1 / 2, (1 / 2,))), (0, 1)),
    "heun2": (((0, ()), (1, (1,))), (1 / 2, 1 / 2)),
    "heun3": (((0, ()), (1 / 3, (1 / 3,)), (2 / 3, (0, 2 / 3))), (1 / 4, 0, 3 / 4)),
    "rk4": (
        ((0, ()), (1 / 3, (1 / 3,)), (2 / 3, (-1 / 3, 1)), (1, (1, -1, 1))),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}
