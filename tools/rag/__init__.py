"""Documents in, passages with their exact source out.

collections.py   what the tool, the routes and the command line call; who may do what
catalog.py       a user's collections: names, ids, sharing (one SQLite file a user)
store.py         the truth of one collection: documents, chunks, vectors (one SQLite file)
ingest.py        reader -> chunking.py -> embedder.py -> one transaction
retrieval.py     dense.py (FAISS) and lexical.py (BM25), fused.py; both are caches of the store
embedder.py      the embedding model, in a process of its own (model_process.py, embedding_worker.py)
reranker.py      the re-ranking model, where one is set, in another such process
"""
