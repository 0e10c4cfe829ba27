import { describe, expect, test } from 'vitest'
import { createWakes } from '../../src/dispatch/wakes.ts'

function setUp(kicked: 'woke' | 'idle' = 'woke', polled = false) {
  const calls: unknown[][] = []
  const record =
    (name: string) =>
    (...args: unknown[]) =>
      void calls.push([name, ...args])
  const results: string[] = []
  const heard: string[] = []
  const wakes = createWakes({
    dispatcher: {
      kick: (...args) => (calls.push(['kick', ...args]), kicked),
      kickAll: record('kickAll'),
    },
    dueWork: { lookAhead: record('lookAhead') },
    directory: { forget: record('forget'), forgetAll: record('forget all') },
    arming: {
      notified: (topic, what) => (heard.push(`${topic} ${what}`), !polled),
      listening: record('listening'),
      deaf: record('deaf'),
    },
    marks: { forget: record('forget marks') },
    heldHeartbeats: {
      announced: (job) => (calls.push(['announced', job]), job === '7'),
      announcedAll: record('announced all'),
    },
    emit: (event) => {
      if (event.type === 'notification') results.push(event.result)
    },
  })
  return { calls, results, heard, wakes }
}

const id = '0193a7f0-0000-7000-8000-00000000000a'

describe('a notification', () => {
  test.each([
    { payload: '42', calls: [['kick', '42', 'notification']] },
    { payload: '-42', calls: [['kick', '-42', 'notification']] },
    { payload: '9223372036854775807', calls: [['kick', '9223372036854775807', 'notification']] },
    { payload: 'due:-42', calls: [['lookAhead']] },
  ])('$payload wakes', ({ payload, calls }) => {
    const world = setUp()
    world.wakes.notified(payload)
    expect(world.calls).toEqual(calls)
    expect(world.results).toEqual(['woke'])
  })

  test.each([
    { payload: '-42', counts: '-42 ready' },
    { payload: 'due:-42', counts: '-42 due' },
  ])('$payload counts in its topic', ({ payload, counts }) => {
    const { wakes, heard } = setUp()
    wakes.notified(payload)
    expect(heard).toEqual([counts])
  })

  test('of a topic that is polled kicks nothing', () => {
    const { wakes, calls, results } = setUp('woke', true)
    wakes.notified('42')
    expect(calls).toEqual([])
    expect(results).toEqual(['idle'])
  })

  test('of a topic without pulls is idle', () => {
    const { wakes, results } = setUp('idle')
    wakes.notified('42')
    expect(results).toEqual(['idle'])
  })

  test('of an ended subscription has it forgotten, and asks the database whether it is true', () => {
    const { wakes, calls, results } = setUp()
    wakes.notified(`ended:${id}`)
    expect(calls).toEqual([['forget', [id]], ['lookAhead']])
    expect(results).toEqual(['woke'])
  })

  test('of a cancel has held heartbeats ask again, if there are any', () => {
    const { wakes, calls, results } = setUp()
    wakes.notified('cancel:7')
    wakes.notified('cancel:8')
    expect(calls).toEqual([
      ['announced', '7'],
      ['announced', '8'],
    ])
    expect(results).toEqual(['woke', 'idle'])
  })

  test.each([
    ...[
      '',
      ' ',
      '42 ',
      '42\n',
      '+42',
      '4_2',
      '4.2',
      '0x2a',
      '1e3',
      '-',
      '٤٢',
      '9'.repeat(21),
      '9'.repeat(8_000),
    ],
    ...[
      'due',
      'Due:1',
      'due:',
      'due:1 ',
      'ended',
      'ended:',
      `ended:${id} `,
      `ended:${id}0`,
      `ended:${id.toUpperCase()}`,
    ],
    ...[
      'cancel:',
      'cancel:-1',
      'cancel:1 ',
      `cancel:${'9'.repeat(20)}`,
      `ended:${id}\n`,
      `x ended:${id}`,
      '{"topic":42}',
      "42'; drop table x",
      '\u0000',
      '42,43',
      '__proto__',
    ],
  ])('that is none of ours (%j) does nothing', (payload) => {
    const { wakes, calls, results } = setUp()
    wakes.notified(payload)
    expect(calls).toEqual([])
    expect(results).toEqual(['invalid'])
  })
})

test('a resync looks at every topic, and ahead', () => {
  const { wakes, calls } = setUp()
  wakes.resync()
  expect(calls).toEqual([
    ['forget marks'],
    ['forget all'],
    ['listening'],
    ['kickAll', 'resync'],
    ['announced all'],
    ['lookAhead'],
  ])
})

describe('a listener that hears nothing', () => {
  test('for a while leaves the topics to the backstop', () => {
    const { wakes, calls } = setUp()
    wakes.deaf('network')
    expect(calls).toEqual([['forget marks'], ['deaf', false]])
  })

  test('for good has every topic that has waiters claimed, and polled from then on', () => {
    const { wakes, calls } = setUp()
    wakes.deaf('pooler')
    expect(calls).toEqual([['forget marks'], ['deaf', true], ['kickAll', 'resync']])
  })
})
