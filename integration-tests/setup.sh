#!/usr/bin/env bash
# Installs what the integration tests use, from package registries only.
#   setup.sh [PART...]    parts: python kafka java kcat postgres node go minio gcs azurite history   (default: all)   clients deny previous
# Everything lands in $TEST_CACHE_DIR (default: .cache at the root of the repository, which git ignores) and is
# made again only when its own inputs change. Needs Python 3.10+, Java 17+ with javac, Maven, Node, Go; kcat and PostgreSQL
# come from Debian's packages. Prints one line per part with the seconds it took.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
cache=${TEST_CACHE_DIR:-$root/.cache}
mkdir -p "$cache/bin" "$cache/stamps" "$cache/logs"
cache=$(cd "$cache" && pwd)

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
gcs_version=v1.56.1
old_java_version=3.9.2 # of the Java client: the last that knows version 1 of transactions only
deny_version=0.20.2

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" && return
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

need() { # command, what for
  command -v "$1" > /dev/null || { echo "setup: $1 is missing ($2)" >&2; exit 1; }
}

# part_NAME installs; inputs_NAME prints what its result depends on; ready_NAME says whether the result is still there.

inputs_python() { cat "$here/requirements.txt"; python3 --version; }
ready_python() { [ -x "$cache/venv/bin/pytest" ]; }
part_python() {
  need python3 "the tests are written in Python"
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv" || { apt_install python3-venv; python3 -m venv "$cache/venv"; }
  "$cache/venv/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
}

inputs_kafka() { cat "$here/peers/kafka/pom.xml" "$here/peers/kafka/install.sh"; }
ready_kafka() { [ -x "$cache/kafka/bin/kafka-topics" ] && [ -s "$cache/kafka/VERSION" ]; }
part_kafka() {
  need java "Kafka's own tools"; need mvn "Kafka's jars"
  "$here/peers/kafka/install.sh" "$cache/kafka"
}

inputs_java() { cat "$here"/drivers/java/*.java; inputs_kafka; }
ready_java() { [ -s "$cache/java/Driver.class" ]; }
part_java() {
  need javac "the driver of the Java client"
  rm -rf "$cache/java"; mkdir -p "$cache/java"
  javac -nowarn -cp "$cache/kafka/libs/*" -d "$cache/java" "$here"/drivers/java/*.java
}

inputs_kcat() { echo kcat; }
ready_kcat() { command -v kcat > /dev/null; }
part_kcat() { apt_install kcat; }

# The tests start servers of their own; Debian's package would start one too, if it is not told before.
inputs_postgres() { echo postgresql openssl; }
ready_postgres() { ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 && command -v openssl > /dev/null; }
part_postgres() {
  as_root mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] \
    || echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf > /dev/null
  apt_install postgresql openssl
}

inputs_node() { cat "$here/drivers/node/package-lock.json"; }
ready_node() { [ -d "$cache/node/node_modules/kafkajs" ]; }
part_node() {
  need npm "kafkajs"
  mkdir -p "$cache/node"
  cp "$here"/drivers/node/package*.json "$cache/node/"
  (cd "$cache/node" && npm ci --no-audit --no-fund --loglevel=error)
}

inputs_go() { cat "$here"/drivers/go/*; }
ready_go() { [ -x "$cache/bin/franz-driver" ]; }
part_go() {
  need go "franz-go"
  (cd "$here/drivers/go" && go build -buildvcs=false -o "$cache/bin/franz-driver" .)
}

# Franz-go's own tests, for a broker that is there, and an older Java client: not among the defaults, what uses them is nightly.
inputs_clients() { cat "$here/drivers/go/go.sum"; echo "$old_java_version"; }
ready_clients() { [ -x "$cache/bin/franz-tests" ] && [ -s "$cache/java-old/kafka-clients-$old_java_version.jar" ]; }
part_clients() {
  need go "franz-go's tests"; need mvn "an older Java client"
  (cd "$here/drivers/go" && go test -c -o "$cache/bin/franz-tests" github.com/twmb/franz-go/pkg/kgo)
  rm -rf "$cache/java-old"
  mvn -q -B "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy" -DoutputDirectory="$cache/java-old" \
      -Dartifact="org.apache.kafka:kafka-clients:$old_java_version"
}

inputs_minio() { echo "$minio_version"; }
ready_minio() { [ -x "$cache/bin/minio" ]; }
part_minio() { need go MinIO; GOBIN="$cache/bin" go install "github.com/minio/minio@$minio_version"; }

inputs_gcs() { echo "$gcs_version"; }
ready_gcs() { [ -x "$cache/bin/fake-gcs-server" ]; }
part_gcs() { need go fake-gcs-server; GOBIN="$cache/bin" go install "github.com/fsouza/fake-gcs-server@$gcs_version"; }

inputs_azurite() { cat "$here/peers/azurite/package-lock.json"; }
ready_azurite() { [ -x "$cache/azurite/node_modules/.bin/azurite-blob" ]; }
part_azurite() {
  need npm Azurite
  mkdir -p "$cache/azurite"
  cp "$here"/peers/azurite/package*.json "$cache/azurite/"
  (cd "$cache/azurite" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
}

# The checker of histories. Cargo decides what is made again; it lands in its own directory.
inputs_history() { cat "$root/Cargo.lock" "$here"/history/Cargo.toml; find "$here/history/src" -name '*.rs' | sort | xargs cat; }
ready_history() { [ -x "$root/target/release/history-check" ]; }
part_history() { (cd "$root" && cargo build --release --locked -p strandline-history); }

# Not among the defaults: it takes minutes to build, and only `make deny` uses it.
inputs_deny() { echo "$deny_version"; }
ready_deny() { [ -x "$cache/bin/cargo-deny" ]; }
part_deny() { cargo install --locked --quiet --root "$cache" "cargo-deny@$deny_version"; }

# Nor is the last version at feature level 1, which upgrades begin from. It is built as it was.
previous_version=c2fb07b2652f65374ecf04a203c7dc5e9cfb873f
inputs_previous() { echo "$previous_version"; }
ready_previous() { [ -x "$cache/previous/strandline" ]; }
part_previous() {
  rm -rf "$cache/previous"; mkdir -p "$cache/previous/source"
  git -C "$root" archive "$previous_version" | tar x -C "$cache/previous/source"
  (cd "$cache/previous/source" && cargo build --release --locked --target-dir target)
  mv "$cache/previous/source/target/release/strandline" "$cache/previous/strandline"
  rm -rf "$cache/previous/source"
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(python kafka java kcat postgres node go minio gcs azurite history)
for part in "${parts[@]}"; do
  declare -F "part_$part" > /dev/null || { echo "setup: no part named $part" >&2; exit 2; }
  stamp=$cache/stamps/$part
  wanted=$("inputs_$part" | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && "ready_$part"; then continue; fi
  started=$SECONDS
  # As a job of its own: inside a condition the shell would go on after a failed step.
  ("part_$part") > "$cache/logs/$part.log" 2>&1 &
  done=yes; wait $! || done=no
  if [ $done = no ] || ! "ready_$part"; then
    echo "setup: $part failed; the end of $cache/logs/$part.log:" >&2
    tail -20 "$cache/logs/$part.log" >&2
    exit 1
  fi
  echo "$wanted" > "$stamp"
  echo "setup: $part ready after $((SECONDS - started)) s"
done
