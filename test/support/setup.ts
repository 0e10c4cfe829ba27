// A worker of vitest goes on when vitest itself was killed, and with it all that its tests have started.
process.once('disconnect', () => process.exit(1))
