// kafkajs behind one JSON object per line on standard input and output; bytes are Base64, null stays null.
//
// kafkajs reads only as a member of a group. To read by assignment, `fetch` goes through the layer below its consumer:
// its Cluster and Broker send the same Fetch requests and decode the same record batches.
const readline = require('readline')
const { createRequire } = require('module')
const load = createRequire(process.argv[3] + '/')
const kafkajs = load('kafkajs')
const Cluster = load('kafkajs/src/cluster')
const snappy = load('snappyjs')
const lz4 = load('lz4-napi')
const zstd = load('@mongodb-js/zstd')

const { CompressionTypes: Types, CompressionCodecs: Codecs } = kafkajs
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00])

// Kafka's snappy is framed by snappy-java: a magic, two versions, then blocks with their length; librdkafka sends it bare.
function unsnap(buffer) {
  if (buffer.length < 16 || !buffer.subarray(0, 8).equals(XERIAL)) return Buffer.from(snappy.uncompress(buffer))
  const blocks = []
  for (let at = 16; at < buffer.length; ) {
    const length = buffer.readUInt32BE(at)
    blocks.push(Buffer.from(snappy.uncompress(buffer.subarray(at + 4, at + 4 + length))))
    at += 4 + length
  }
  return Buffer.concat(blocks)
}

Codecs[Types.Snappy] = () => ({ compress: e => Buffer.from(snappy.compress(e.buffer)), decompress: unsnap })
Codecs[Types.LZ4] = () => ({ compress: e => lz4.compressFrame(e.buffer), decompress: b => lz4.decompressFrame(b) })
Codecs[Types.ZSTD] = () => ({ compress: e => zstd.compress(e.buffer), decompress: b => zstd.decompress(b) })
const CODEC = { none: Types.None, gzip: Types.GZIP, snappy: Types.Snappy, lz4: Types.LZ4, zstd: Types.ZSTD }

const kafka = new kafkajs.Kafka({
  clientId: 'driver',
  brokers: [process.argv[2]],
  logLevel: kafkajs.logLevel.NOTHING,
  retry: { retries: 5 },
})
const bytes = text => (text === null || text === undefined ? null : Buffer.from(text, 'base64'))
const base64 = buffer => (buffer === null || buffer === undefined ? null : Buffer.from(buffer).toString('base64'))

// Header values of the same name come back as one list.
function headersIn(pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    if (!(name in headers)) headers[name] = bytes(value)
    else headers[name] = [].concat(headers[name], bytes(value))
  }
  return headers
}
const headersOut = headers =>
  Object.entries(headers || {}).flatMap(([name, value]) => [].concat(value).map(v => [name, base64(v)]))

const producers = new Map()
async function producer(idempotent) {
  if (!producers.has(idempotent)) {
    const made = kafka.producer({ idempotent, maxInFlightRequests: 1, allowAutoTopicCreation: true })
    await made.connect()
    producers.set(idempotent, made)
  }
  return producers.get(idempotent)
}

async function produce(request) {
  const out = await producer(Boolean(request.idempotent))
  const sent = await out.send({
    topic: request.topic,
    acks: request.acks === undefined ? -1 : request.acks,
    compression: CODEC[request.codec],
    messages: request.records.map(r => ({
      partition: r.partition === null ? undefined : r.partition,
      key: bytes(r.key),
      value: bytes(r.value),
      headers: headersIn(r.headers),
      timestamp: r.timestamp === null ? undefined : String(r.timestamp),
    })),
  })
  // One answer per partition, with the offset of its first record.
  const next = new Map(sent.map(s => [s.partition, Number(s.baseOffset)]))
  return request.records.map(r => {
    const partition = r.partition === null ? sent[0].partition : r.partition
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return [partition, offset]
  })
}

let cluster
async function connected() {
  if (cluster) return cluster
  const { createLogger, LEVELS } = load('kafkajs/src/loggers')
  const logger = createLogger({ level: LEVELS.NOTHING, logCreator: () => () => {} })
  cluster = new Cluster({
    logger,
    socketFactory: load('kafkajs/src/network/socketFactory')(),
    brokers: [process.argv[2]],
    clientId: 'driver-reader',
    retry: { retries: 5, initialRetryTime: 100, maxRetryTime: 2000, factor: 0.2, multiplier: 2 },
    connectionTimeout: 5000,
    requestTimeout: 30000,
    enforceRequestTimeout: true,
    metadataMaxAge: 300000,
    allowAutoTopicCreation: false,
    maxInFlightRequests: null,
    offsets: new Map(),
  })
  await cluster.connect()
  return cluster
}

async function fetch(request) {
  const { topic, partition, count } = request
  const reader = await connected()
  await reader.addTargetTopic(topic)
  await reader.refreshMetadata()
  const [leader] = Object.keys(reader.findLeaderForPartitions(topic, [partition]))
  const broker = await reader.findBroker({ nodeId: leader })
  const deadline = Date.now() + request.timeout_ms
  const records = []
  let next = BigInt(request.offset)
  while (records.length < count && Date.now() < deadline) {
    const { responses } = await broker.fetch({
      maxWaitTime: 200,
      minBytes: 1,
      maxBytes: 10485760,
      isolationLevel: 0,
      topics: [{ topic, partitions: [{ partition, fetchOffset: String(next), maxBytes: 1048576 }] }],
    })
    for (const message of responses[0].partitions[0].messages) {
      if (message.isControlRecord || BigInt(message.offset) < next || records.length >= count) continue
      next = BigInt(message.offset) + 1n
      records.push({
        partition,
        offset: Number(message.offset),
        timestamp: Number(message.timestamp),
        timestamp_type: null,
        key: base64(message.key),
        value: base64(message.value),
        headers: headersOut(message.headers),
      })
    }
  }
  return records
}

let admin
async function withAdmin() {
  if (!admin) {
    admin = kafka.admin()
    await admin.connect()
  }
  return admin
}

const operations = {
  produce,
  fetch,
  async create({ topic, partitions, configs }) {
    const configEntries = Object.entries(configs || {}).map(([name, value]) => ({ name, value }))
    return (await withAdmin()).createTopics({
      topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }],
    })
  },
  async delete({ topic }) {
    await (await withAdmin()).deleteTopics({ topics: [topic] })
  },
  async list() {
    return (await withAdmin()).listTopics()
  },
  async offsets({ topic }) {
    return (await withAdmin()).fetchTopicOffsets(topic)
  },
  // kafkajs sends the old AlterConfigs, which replaces the whole set.
  async alter({ topic, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const resources = [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries }]
    await (await withAdmin()).alterConfigs({ validateOnly: false, resources })
  },
  async configs({ topic }) {
    const resources = [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }]
    const found = await (await withAdmin()).describeConfigs({ includeSynonyms: false, resources })
    return Object.fromEntries(found.resources[0].configEntries.map(e => [e.configName, e.configValue]))
  },
}

let turn = Promise.resolve()
readline.createInterface({ input: process.stdin }).on('line', line => {
  turn = turn.then(async () => {
    let reply
    try {
      const request = JSON.parse(line)
      const result = await operations[request.op](request)
      reply = { result: result === undefined ? null : result }
    } catch (error) {
      reply = { error: `${error.name}: ${error.message}` }
    }
    process.stdout.write(JSON.stringify(reply) + '\n')
  })
}).on('close', () => process.exit(0))
