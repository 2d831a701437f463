#!/usr/bin/env bash
# Lab folders to preference pairs, under the option names of an earlier project: `ramify data labs` does the work.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/create_dpo_dataset.sh --parent_dir DIR [options] [-- OPTIONS OF ramify data labs]

  --parent_dir DIR             the folder that holds the lab folders
  --eval_lab_names NAME...     labs held out: all their rows go to the test file
  --train_split SHARE          share of the students who train; default as `ramify data labs`
  --system_prompt_path FILE    the text of a system turn
  --train_dataset_path FILE    default data/train.jsonl
  --test_dataset_path FILE     default data/test.jsonl
  --verbose 0|1                1: the whole statement (default); 0: the short one
  --overwrite                  replace the two files

Beside the training file stands report.json. PYTHON names the Python that has ramify.
END
}

fail() {
  printf 'error: %s\nhint: see %s --help\n' "$1" "$0" >&2
  exit 2
}

python="${PYTHON:-}"
if [[ -z "$python" ]]; then
  own="$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python"
  if [[ -x "$own" ]]; then python="$own"; else python=python3; fi
fi
parent='' train=data/train.jsonl test=data/test.jsonl overwrite=''
names=() options=()
while (($#)); do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --overwrite) overwrite=1; shift; continue ;;
    --) shift; options+=("$@"); break ;;
    --eval_lab_names)
      shift
      while (($#)) && [[ "$1" != --* ]]; do names+=(--eval-labs "$1"); shift; done
      continue ;;
  esac
  [[ "$1" == --* ]] || fail "unexpected $1"
  (($# > 1)) || fail "$1 needs a value"
  case "$1" in
    --parent_dir) parent="$2" ;;
    --train_split) options+=(--train-split "$2") ;;
    --system_prompt_path) options+=(--system-prompt "$2") ;;
    --train_dataset_path) train="$2" ;;
    --test_dataset_path) test="$2" ;;
    --verbose)
      case "$2" in
        0) options+=(--statement short) ;;
        1) options+=(--statement verbose) ;;
        *) fail "--verbose $2: 0 or 1 is allowed" ;;
      esac ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done
[[ -n "$parent" ]] || fail "--parent_dir is missing"
report="$(dirname "$train")/report.json"
[[ "$train" != "$test" && "$test" != "$report" && "$train" != "$report" ]] || fail "the files written need names of their own"
for file in "$train" "$test" "$report"; do
  [[ -z "$overwrite" && -e "$file" ]] && fail "$file exists; --overwrite replaces it"
done

mkdir -p "$(dirname "$train")" "$(dirname "$test")"
made="$(mktemp -d "$(dirname "$train")/.labs.XXXXXX")"
trap 'rm -rf -- "$made"' EXIT
"$python" -m ramify data labs "$parent" --out "$made" ${names[@]+"${names[@]}"} ${options[@]+"${options[@]}"}
mv -f -- "$made/train.jsonl" "$train"
mv -f -- "$made/test.jsonl" "$test"
mv -f -- "$made/report.json" "$report"
