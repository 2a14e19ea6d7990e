"""The code interpreter: a user's Python runs warm, keeps its state between calls, and cannot get out.

    tool.py ---- pool.py ---- zygote_client.py          the tools API's side: asyncio, trusted
      |            `- interpreter_client.py ~ frames.py ~ session.py        (one socket per interpreter)
      |- workspace.py, results.py, cgroups.py, probes.py
                                  zygote.py             the prepared parent: forks interpreters, watches and ends them
                                    `- session.py       a fork of it, confined by sandbox.py; runs the user's code
                                         `- notebook.py, display.py

What lies on the zygote's side (`zygote session notebook display sandbox seccomp syscalls landlock linux frames`)
imports the standard library alone, and never anything of the servers.
"""
