"""What every daemon stands on: clock, files, configuration, logs, links and its life as a process.

Input and output of links and files live here and in few other rooms. Everything that can fail
outside the program fails as an `agents.runtime.errors.AgentError`.
"""
