#!/usr/bin/env bash
# Builds both images with buildah, without a Docker engine, and runs them: train on a slice, serve, ask, stop.
#
#   deploy/check_image.sh [WORK_DIRECTORY]
#
# Needs root, Debian's buildah and debootstrap, and about 40 GB below WORK_DIRECTORY (default: a temporary
# one). The base image is made from a minimal Debian, so nothing comes from an image registry. The host's
# package settings are passed on, since a build sees no other network than the host's.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
store=(--root "$work/storage" --runroot "$work/run")
base=lantern-check-base
artifacts=$work/artifacts
data=$work/data
port=8123

say() { printf '\n== %s\n' "$*"; }

if ! buildah "${store[@]}" inspect --type image "$base" >/dev/null 2>&1; then
  say "base image"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/rootfs" >/dev/null
  for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt /etc/apt/sources.list.d /etc/apt/apt.conf.d; do
    [ -e "$file" ] && mkdir -p "$work/rootfs$(dirname "$file")" && cp -rL "$file" "$work/rootfs$(dirname "$file")/"
  done
  container=$(buildah "${store[@]}" from scratch)
  buildah "${store[@]}" copy --quiet "$container" "$work/rootfs" / >/dev/null
  buildah "${store[@]}" config --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$container"
  buildah "${store[@]}" commit --quiet "$container" "$base" >/dev/null
  buildah "${store[@]}" rm "$container" >/dev/null
  rm -rf "$work/rootfs"
fi

for target in serving training; do
  say "build $target"
  # Docker's format: the OCI's own has no place for a health check.
  buildah "${store[@]}" build --format docker --build-arg BASE="localhost/$base" --target "$target" --tag "lantern-$target" .
done

say "what the image says of itself"
buildah "${store[@]}" inspect --type image lantern-serving > "$work/serving.json"
python3 - "$work/serving.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["User"] == "lantern", config["User"]
assert config["StopSignal"] == "SIGTERM", config.get("StopSignal")
print("user", config["User"], "- command", config["Cmd"])
PYTHON

say "fetch the data and train on a slice, as the image's own user, into volumes"
mkdir -p "$artifacts" "$data"
chown -R 10001 "$artifacts" "$data"
training=$(buildah "${store[@]}" from lantern-training)
volumes=(--volume "$artifacts:/srv/lantern/models/artifacts" --volume "$data:/srv/lantern/data")
buildah "${store[@]}" run "${volumes[@]}" "$training" -- python3 -m training.datasets.fashion_mnist
buildah "${store[@]}" run "${volumes[@]}" "$training" -- \
  python3 -m training fashion --limit 2000 --epochs 1 --precision fp32 --min-accuracy 0.2

say "serve it"
serving=$(buildah "${store[@]}" from lantern-serving)
buildah "${store[@]}" run --volume "$artifacts:/srv/lantern/models/artifacts:ro" \
  --env LANTERN_PORT=$port --env LANTERN_DRAIN_GRACE_S=0 "$serving" -- python3 -m app 2> "$work/serving.log" &
runner=$!
# The service is the last in the line of processes below buildah's.
service_below() { local child; child=$(pgrep --parent "$1") && service_below "$child" || echo "$1"; }
trap 'kill -TERM "$(service_below $runner)" 2>/dev/null || true' EXIT
for _ in $(seq 120); do
  curl --silent --fail "http://127.0.0.1:$port/health/ready" >/dev/null && break
  kill -0 $runner 2>/dev/null || { cat "$work/serving.log"; exit 1; }
  sleep 0.5
done
image=$(ls "$artifacts"/fashion/*/golden/0.png | tail -1)
curl --silent --fail --header 'Content-Type: image/png' --data-binary @"$image" "http://127.0.0.1:$port/predict"
echo
service=$(service_below $runner)
[ "$(stat --format=%u "/proc/$service")" = 10001 ] || { echo "the service does not run as its own user"; exit 1; }
health=$(python3 -c 'import json,sys; print(json.dumps(json.load(open(sys.argv[1]))["Docker"]["config"]["Healthcheck"]["Test"][1:]))' "$work/serving.json")
say "health check: $health"
python3 - "$health" $port <<'PYTHON'
import json, os, subprocess, sys
subprocess.run(json.loads(sys.argv[1]), env=os.environ | {"LANTERN_PORT": sys.argv[2]}, check=True)
PYTHON
kill -TERM "$service"
wait $runner
grep --quiet 'drained: every admitted item was answered' "$work/serving.log"
say "stopped cleanly: both images build, train, serve and stop"
buildah "${store[@]}" rm "$training" "$serving" >/dev/null
