#!/bin/bash
# Train on several nodes: srun starts a process for each GPU, and each is told where the first one is.
#   sbatch --nodes=2 --export=ALL,DATA=$HOME/photos,OUTPUT=$SCRATCH/shop several-nodes.sh
#SBATCH --job-name=mixtura
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

DATA=${DATA:?the folder of photos}
OUTPUT=${OUTPUT:?a folder on the shared disk, for the model and its checkpoints}

# Give ENVIRONMENT=..., the virtual environment with mixtura, unless it is active where you call sbatch.
if [ -n "${ENVIRONMENT:-}" ]; then source "$ENVIRONMENT/bin/activate"; fi

# Two minutes before the time is up, SLURM tells this script, and srun passes it on to each process, once. The step is
# finished and committed, and the job is queued again; it then goes on from there. Without torchrun in between, no
# process is told twice: a second signal would end it at once.
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

# Each node has a disk of its own under the same name, to which the photos are copied; checkpoints stay on the shared one.
# If your site sets no SLURM_TMPDIR, delete the copies when the job has ended.
export PHOTOS=${SLURM_TMPDIR:-${TMPDIR:-/tmp}/mixtura-$SLURM_JOB_ID}/photos DATA OUTPUT
srun --ntasks-per-node=1 --ntasks="$SLURM_NNODES" bash -c 'mkdir -p "$PHOTOS" && cp -R "$DATA/." "$PHOTOS/"'

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*} MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

# You may add --fresh: it counts when the job starts for the first time, not when it goes on.
srun --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  exec python -m mixtura train "$PHOTOS" -o "$OUTPUT" --trainable all' &
training=$!
wait "$training"
