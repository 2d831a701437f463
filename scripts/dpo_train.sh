#!/usr/bin/env bash
# Preference optimisation on rubric pairs, under the option names of an earlier project: `ramify train` does the work.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/dpo_train.sh [options] [KEY=VALUE of ramify train]...

  --model_size 7b|22b|nano     CodeLlama-7B-Instruct (default), Codestral-22B, or the embedded model
  --model NAME                 another model with the settings of that size: a hub id, a folder or a run
  --device DEVICE              cpu, cuda, cuda:N, mps, auto
  --train_dataset_path FILE    default data/train.jsonl
  --test_dataset_path FILE     pairs to measure during training; default none
  --output_dir DIR             run folder; default runs/<name of the settings>
  --learning_rate NUMBER       --epochs NUMBER       --batch_size PAIRS      --beta NUMBER
  --lora_r NUMBER              --lora_alpha NUMBER   --lora_dropout NUMBER   --lora_targets NAME,NAME...
  --max_length TOKENS          longer pairs are left out and counted
  --quantize nf4|none          4-bit or 16-bit weights below the adapter
  --dry-run | --resume | --overwrite    as for `ramify train`

Options not given are as in recipes/grading. PYTHON names the Python that has ramify.
END
}

fail() {
  printf 'error: %s\nhint: see %s --help\n' "$1" "$0" >&2
  exit 2
}

quoted() { # a text as JSON, which is YAML: a path may hold `: ` or ` #`
  local text="${1//\\/\\\\}"
  printf '"%s"' "${text//\"/\\\"}"
}

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
  own="$project/.venv/bin/python"
  if [[ -x "$own" ]]; then python="$own"; else python=python3; fi
fi
recipe=codellama-7b train=data/train.jsonl
arguments=()
while (($#)); do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --dry-run | --resume | --overwrite) arguments+=("$1"); shift; continue ;;
    --*) (($# > 1)) || fail "$1 needs a value" ;;
    *=*) arguments+=("$1"); shift; continue ;;
    *) fail "unexpected $1" ;;
  esac
  case "$1" in
    --model_size)
      case "$2" in
        7b | 7B) recipe=codellama-7b ;;
        22b | 22B) recipe=codestral-22b ;;
        nano) recipe=dpo ;;
        *) fail "--model_size $2: 7b, 22b or nano is allowed" ;;
      esac ;;
    --model) arguments+=("model=$(quoted "$2")") ;;
    --device) arguments+=("train.device=$(quoted "$2")") ;;
    --train_dataset_path) train="$2" ;;
    --test_dataset_path) arguments+=("data.valid=$(quoted "$2")") ;;
    --output_dir) arguments+=(--out "$2") ;;
    --learning_rate) arguments+=("train.lr=$2") ;;
    --epochs) arguments+=("train.epochs=$2") ;;
    --batch_size) arguments+=("train.batch_size=$2") ;;
    --beta) arguments+=("dpo.beta=$2") ;;
    --lora_r) arguments+=("lora.r=$2") ;;
    --lora_alpha) arguments+=("lora.alpha=$2") ;;
    --lora_dropout) arguments+=("lora.dropout=$2") ;;
    --lora_targets) [[ "$2" == all-linear ]] && arguments+=("lora.targets=$2") || arguments+=("lora.targets=[$2]") ;;
    --max_length) arguments+=("data.max_length=$2") ;;
    --quantize)
      case "$2" in
        nf4) arguments+=(train.quantize=nf4) ;;
        none) arguments+=(train.quantize=null) ;;
        *) fail "--quantize $2: nf4 or none is allowed" ;;
      esac ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done
exec "$python" -m ramify train "$project/recipes/grading/$recipe.yaml" "data.train=$(quoted "$train")" \
  ${arguments[@]+"${arguments[@]}"}
