"""The code interpreter: a user's Python runs warm, keeps its state between calls, and cannot get out.

    tool.py ---- pool.py ---- zygote_client.py          the tools API's side: asyncio, trusted
      |            `- interpreter_client.py ~ frames.py ~ session.py        (one socket per interpreter)
      |- workspace.py, results.py, cgroups.py, probes.py
                                  zygote.py             the prepared parent: forks interpreters, watches and ends them
                                    `- session.py       a fork of it, confined by sandbox.py; runs the user's code
                                         `- notebook.py, display.py

In the nanocoder mode a session runs a program in place of an interpreter, and has a network with one address in it:

    nanocoder.py ---- nanocoder_program.py ~ nanocoder_session.py            (a fork of a zygote of its own)
      |- nanocoder_gateway.py, nanocoder_wire.py          that address: the servers' own models
      `- nanocoder_install.py, nanocoder_probe.py, nanocoder_report.py

What lies on the zygote's side (`zygote session nanocoder_session notebook display sandbox seccomp syscalls landlock
linux frames`) imports the standard library alone, and never anything of the servers.
"""
