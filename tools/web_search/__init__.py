"""The web for models: a search by the first provider that answers, an answer written from it, and single pages.

tool.py --- chain.py --- tavily.py, searxng.py, keyless.py     who is asked, in this order
  |           `- search.py                                     what a provider is, and how one fails
  |- cached.py, rates.py                                       what is known already; who has asked too often
  |- answer.py                                                 from results to an answer with numbered sources
  `- page.py                                                   one page as text

keyless_child.py and page_child.py run on their own: libraries that block, or that read what strangers wrote, work in
processes with limits, and are killed when they are too slow or nobody waits for them any more.
"""
