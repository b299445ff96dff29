#!/bin/bash
# A pair of peers on a node with two GPUs, a process each, under SLURM. The same command goes on with the run.
#     sbatch run.sh --config conf/train.yaml --exp exp/pair
# All arguments are those of `sepml train`; it takes the number of processes and nodes from SLURM.
#SBATCH --job-name=sepml
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:2
#SBATCH --time=24:00:00
#SBATCH --requeue

set -euo pipefail

# Otherwise a process would divide the cores of its task by the number of processes once more.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
exec srun sepml train --strategy peers "$@"
