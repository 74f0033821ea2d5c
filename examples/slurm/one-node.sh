#!/bin/bash
# Train on all GPUs of one node: torchrun starts a process for each, and starts them again if one fails.
#   sbatch --export=ALL,DATA=$HOME/photos,OUTPUT=$SCRATCH/shop one-node.sh
#SBATCH --job-name=mixtura
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

DATA=${DATA:?the folder of photos}
OUTPUT=${OUTPUT:?a folder on the shared disk, for the model and its checkpoints}
PROCESSES=${SLURM_GPUS_ON_NODE:-1}

# Give ENVIRONMENT=..., the virtual environment with mixtura, unless it is active where you call sbatch.
if [ -n "${ENVIRONMENT:-}" ]; then source "$ENVIRONMENT/bin/activate"; fi

# Two minutes before the time is up, SLURM tells this script. The step is finished and committed, and the job is queued
# again; it then goes on from there. torchrun waits 30 seconds for that.
training=
requeue() {
  trap '' TERM
  if [ -n "$training" ]; then
    kill -TERM "$training" || true
    wait "$training" || true
  fi
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue TERM

# Many small files are slow on a shared disk, so the photos are copied once; checkpoints stay on the shared disk.
# If your site sets no SLURM_TMPDIR, delete the copy when the job has ended.
PHOTOS=${SLURM_TMPDIR:-${TMPDIR:-/tmp}/mixtura-$SLURM_JOB_ID}/photos
mkdir -p "$PHOTOS"
cp -R "$DATA/." "$PHOTOS/"

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # without it, PyTorch may hang when it starts processes again
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / PROCESSES > 0 ? SLURM_CPUS_PER_TASK / PROCESSES : 1))

# You may add --fresh: it counts when the job starts for the first time, not when it goes on.
torchrun --standalone --nproc-per-node "$PROCESSES" --max-restarts 3 \
  -m mixtura train "$PHOTOS" -o "$OUTPUT" --trainable all &
training=$!
wait "$training"
