"""Names and figures that two processes of a run put together, printed by each.

Run as a program, which starts the second process itself.
"""

import torch

from sepml.training.launch import launched_fabric, sum_over_processes, union_over_processes


def main() -> None:
    with launched_fabric("cpu", 2, 1, "32-true") as fabric:
        names = union_over_processes(["both", f"only{fabric.global_rank}"], fabric)
        total = sum_over_processes(torch.tensor([1.0 + fabric.global_rank], dtype=torch.float64), fabric)
        print(f"rank {fabric.global_rank}: {','.join(names)} sum {total.item()}", flush=True)


if __name__ == "__main__":
    main()
