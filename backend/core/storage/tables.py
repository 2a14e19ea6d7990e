"""The tables of the database. A new one is made at the next start; a table that exists is not changed by that."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(64), nullable=False, unique=True),
    Column("password_hash", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", Float, nullable=False),  # all times: Unix seconds
    Column("disabled", Boolean, nullable=False, default=False),
    Column("token_version", Integer, nullable=False, default=0),  # a token of an older version is void
    Index("users_by_lower_name", text("lower(username)"), unique=True),  # Alice and alice are one
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),  # SHA-256, hex: keys are random, not guessable
    Column("hint", String(16), nullable=False),  # the key's last characters, to tell keys apart
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", String(200), primary_key=True),  # who is counted: a name with its caller's address
    Column("failures", Integer, nullable=False),
    Column("last_failure_at", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("title", String(200), nullable=False, default=""),
    Column("message_count", Integer, nullable=False, default=0),
    Index("sessions_by_user", "username", "updated_at"),
)

files = Table(
    "files",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, index=True),
    Index("files_by_user", "username", "created_at", "id"),
)

# Where a client that sends its whole history each time left off: the digest of what it has seen -> its session.
session_prefixes = Table(
    "session_prefixes",
    metadata,
    Column("username", String(64), primary_key=True),
    Column("digest", String(32), primary_key=True),
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("seq", Integer, nullable=False),  # of the answer that it ends with: the oldest are dropped
)

# What POST /v1/responses answered, to be asked for again and to go on from.
responses = Table(
    "responses",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("username", String(64), nullable=False),
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("spans", Text, nullable=False),  # JSON, as are the next two
    Column("body", Text, nullable=False),
    Column("input_items", Text, nullable=False),
    Index("responses_by_user", "username", "created_at"),
)

# What admins allow a user, and the maker of a key allows the key. NULL: as the settings say; for a key: no bound.
user_limits = Table(
    "user_limits",
    metadata,
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), primary_key=True),
    Column("requests_per_minute", Integer),  # 0, in all three: no limit
    Column("tokens_per_day", BigInteger),
    Column("concurrent_requests", Integer),
)

key_options = Table(
    "key_options",
    metadata,
    Column("key_id", ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
    Column("requests_per_minute", Integer),
    Column("tokens_per_day", BigInteger),
    Column("concurrent_requests", Integer),
    Column("forwards_users", Boolean, nullable=False, default=False),  # a chat UI's key: see forwarded_users
)

token_usage = Table(
    "token_usage",
    metadata,
    Column("day", String(10), primary_key=True),  # 2026-01-31, in UTC
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("key_id", String(32), primary_key=True),  # empty: none; stays when the key is deleted
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("estimated_tokens", BigInteger, nullable=False),
)

# Accounts that were made for people whom another program has signed in: its name for them -> ours.
forwarded_users = Table(
    "forwarded_users",
    metadata,
    Column("issuer", ForeignKey("users.username", ondelete="CASCADE"), primary_key=True),  # whose key the program has
    Column("external_id", String(64), primary_key=True),  # a digest
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False, unique=True),
)


# What vector stores have and collections of documents do not. A row may outlive its collection, and does no harm.
vector_stores = Table(
    "vector_stores",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False, index=True),
    Column("metadata", Text, nullable=False),  # JSON
)

# Which document was made from which of its owner's files.
vector_store_files = Table(
    "vector_store_files",
    metadata,
    Column("store_id", String(48), primary_key=True),
    Column("document_id", String(48), primary_key=True),
    Column("file_id", String(48), nullable=False),
    Column("username", ForeignKey("users.username", ondelete="CASCADE"), nullable=False, index=True),
    Index("vector_store_files_by_file", "store_id", "file_id"),
)
