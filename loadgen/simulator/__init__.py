"""An OpenAI-compatible server with continuous batching, for tests, demos and measuring clients.

`engine` is pure: continuous batching in virtual time. `server` puts it behind HTTP, `metronome` puts planned times there instead,
`process` runs either as a process of its own. `capacity` asks the engine what the server can do, without a server.
Law: nothing here is imported by what generates load, except `settings` and `process`.
"""
