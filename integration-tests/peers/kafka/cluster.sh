#!/usr/bin/env bash
# A real Kafka cluster on loopback, from what install.sh made.
#   cluster.sh start  TARGET_DIR DATA_DIR [NODES=1] [PORT=19092]   formats fresh storage, starts, waits
#   cluster.sh format TARGET_DIR DATA_DIR [NODES=1] [PORT=19092]   only the first of these (DATA_DIR/node0.properties …)
#   cluster.sh stop   DATA_DIR
# Node i (0-based) serves clients on PORT+i and its controller on PORT+300+i. EXTRA=file: further broker properties.
# Also FIRST_ID (1), NUM_PARTITIONS (1), AUTO_CREATE (true), REBALANCE_DELAY (0), COORD_PARTITIONS (10).
# ACLs can be made and listed, but everyone is a super user. DATA_DIR is emptied at start. Stops by recorded PID only.
set -euo pipefail

format() { # target data nodes port
  local target=$1 data=$2 n=$3 port=$4 first=${FIRST_ID:-1} id voters= rf isr i
  id=$("$target/bin/kafka-storage" random-uuid)
  for ((i=0;i<n;i++)); do voters+="${voters:+,}$((i+first))@127.0.0.1:$((port+300+i))"; done
  rf=$(( n < 3 ? n : 3 )); isr=$(( rf > 1 ? rf-1 : 1 ))
  for ((i=0;i<n;i++)); do
    cat > "$data/node$i.properties" <<CFG
process.roles=broker,controller
node.id=$((i+first))
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$((port+i)),CONTROLLER://127.0.0.1:$((port+300+i))
advertised.listeners=PLAINTEXT://127.0.0.1:$((port+i))
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/logs$i
broker.rack=rack-$i
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
offsets.topic.replication.factor=$rf
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$isr
share.coordinator.state.topic.replication.factor=$rf
share.coordinator.state.topic.min.isr=$isr
offsets.topic.num.partitions=${COORD_PARTITIONS:-10}
transaction.state.log.num.partitions=${COORD_PARTITIONS:-10}
share.coordinator.state.topic.num.partitions=${COORD_PARTITIONS:-10}
group.coordinator.rebalance.protocols=classic,consumer,share,streams
group.initial.rebalance.delay.ms=${REBALANCE_DELAY:-0}
auto.create.topics.enable=${AUTO_CREATE:-true}
num.partitions=${NUM_PARTITIONS:-1}
default.replication.factor=$rf
delegation.token.secret.key=loopback-only
CFG
    [ -z "${EXTRA:-}" ] || cat "$EXTRA" >> "$data/node$i.properties"
    "$target/bin/kafka-storage" format -t "$id" -c "$data/node$i.properties" > "$data/format$i.log" 2>&1 ||
      { cat "$data/format$i.log" >&2; exit 1; }
  done
}

case ${1:-} in
start|format)
  target=$(cd "$2" && pwd); data=$3 n=${4:-1} port=${5:-19092}
  rm -rf "$data"; mkdir -p "$data"; data=$(cd "$data" && pwd)
  format "$target" "$data" "$n" "$port"
  [ "$1" = start ] || exit 0
  t0=$(date +%s%N)
  for ((i=0;i<n;i++)); do
    setsid nohup "$target/bin/kafka-server-start" "$data/node$i.properties" > "$data/server$i.log" 2>&1 < /dev/null &
    echo $! > "$data/pid$i"
  done
  for ((i=0;i<n;i++)); do
    for ((k=0;k<600;k++)); do
      grep -q "Kafka Server started" "$data/server$i.log" && break
      kill -0 "$(cat "$data/pid$i")" 2>/dev/null || { tail -20 "$data/server$i.log" >&2; "$0" stop "$data" >&2; exit 1; }
      sleep 0.1
    done
  done
  b=; for ((i=0;i<n;i++)); do b+="${b:+,}127.0.0.1:$((port+i))"; done
  echo "started $n node(s) in $(( ($(date +%s%N)-t0)/1000000 )) ms: $b";;
stop)
  for f in "$2"/pid*; do p=$(cat "$f"); kill "$p" 2>/dev/null || true
    for ((k=0;k<300;k++)); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$p" 2>/dev/null || true; rm -f "$f"; done; echo stopped;;
*) sed -n 2,9p "$0" >&2; exit 2;;
esac
