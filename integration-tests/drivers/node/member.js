// A member of a consumer group in kafkajs: node member.js CONFIG MODULES; harness/group.py says what it prints.
const readline = require('readline')
const { crc32 } = require('zlib')
const { createRequire } = require('module')
const { Kafka, logLevel, AssignerProtocol, PartitionAssigners } = createRequire(process.argv[3] + '/')('kafkajs')

const config = JSON.parse(process.argv[2])
const emit = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')

// Kafka's range assignor, under the name by which other clients know it; kafkajs itself has only a round-robin of its own.
const range = ({ cluster }) => ({
  name: 'range',
  version: 0,
  protocol: ({ topics }) => ({
    name: 'range',
    metadata: AssignerProtocol.MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) }),
  }),
  async assign({ members, topics }) {
    const ids = members.map(m => m.memberId).sort()
    const shares = new Map(ids.map(id => [id, {}]))
    for (const topic of topics) {
      const partitions = cluster.findTopicPartitionMetadata(topic).map(p => p.partitionId).sort((a, b) => a - b)
      const least = Math.floor(partitions.length / ids.length)
      const more = partitions.length % ids.length
      ids.forEach((id, n) => {
        const from = n * least + Math.min(n, more)
        shares.get(id)[topic] = partitions.slice(from, from + least + (n < more ? 1 : 0))
      })
    }
    return ids.map(memberId => ({
      memberId,
      memberAssignment: AssignerProtocol.MemberAssignment.encode({
        version: 0, assignment: shares.get(memberId), userData: Buffer.alloc(0),
      }),
    }))
  },
})

const kafka = new Kafka({
  clientId: config.name,
  brokers: config.bootstrap.split(","),
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 300, retries: 200 },
})
const consumer = kafka.consumer({
  groupId: config.group,
  partitionAssigners: [config.assignor === 'range' ? range : PartitionAssigners.roundRobin],
  sessionTimeout: config.session_ms,
  heartbeatInterval: config.heartbeat_ms,
  maxWaitTimeInMs: 100,
})
consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
  emit('owned', { partitions: (payload.memberAssignment[config.topic] || []).sort((a, b) => a - b), generation: null }))
consumer.on(consumer.events.REBALANCING, () => emit('owned', { partitions: [], generation: null }))
consumer.on(consumer.events.CRASH, ({ payload }) => emit('error', { text: String(payload.error) }))
consumer.on(consumer.events.COMMIT_OFFSETS, ({ payload }) => {
  const partitions = payload.topics.flatMap(t => t.partitions)
  emit('committed', { offsets: Object.fromEntries(partitions.map(p => [p.partition, Number(p.offset)])) })
})

async function close() {
  await consumer.disconnect()
  emit('closed')
  process.exit(0)
}

async function main() {
  readline.createInterface({ input: process.stdin }).on('close', close).on('line', close)
  await consumer.connect()
  await consumer.subscribe({ topics: [config.topic], fromBeginning: true })
  await consumer.run({
    eachBatch: async ({ batch }) => {
      const records = batch.messages.map(m => [batch.partition, Number(m.offset), crc32(m.value, crc32(m.key || ''))])
      emit('records', { records })
    },
  })
}
main().catch(error => {
  emit('error', { text: String(error) })
  process.exit(1)
})
