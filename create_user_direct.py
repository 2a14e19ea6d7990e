"""Makes and changes accounts from the command line, over the same settings and database as the servers.

Works while they are down, and while they run: they see a change with their next request. Whoever may run this on the
server's machine owns it, so unlike an admin in the API it may also touch the last admin.

Exit codes: 0 done, 1 refused (one line says why), 2 wrong usage.
"""

import argparse
import asyncio
import getpass
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from backend.core.errors import ApiError
from backend.core.identity import Accounts, open_accounts
from backend.core.storage.allowances import KeyOptions
from backend.core.storage.database import Database
from backend.core.storage.drafts import Drafts
from backend.core.storage.files import Files
from backend.core.storage.sessions import Sessions
from backend.core.storage.user_data import UserData
from backend.core.storage.users import check_username
from backend.utils.passwords import check_password
from config import Settings, load_settings

PROGRAM = "create_user_direct"
PAGE = 1000
EXAMPLES = """\
examples:
  python create_user_direct.py                                      asks for everything
  python create_user_direct.py --username alice --role admin        asks for the password
  printf %s "$PASSWORD" | python create_user_direct.py --username alice --role admin --password-stdin
  python create_user_direct.py --make-key alice                     prints a key for your first curl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _make_parser()
    options = parser.parse_args(arguments)
    _check_usage(parser, options)
    settings = load_settings()
    try:
        if options.creates:
            options.username = options.username or _ask("Username: ", input, check_username)
            check_username(options.username)
        if options.creates or options.reset_password:
            options.password = _read_password() if options.password_stdin else _ask_password()
            check_password(options.password)
        if options.creates and options.role is None:
            options.role = "user" if options.password_stdin else _ask_role()
        if options.delete and not options.yes and sys.stdin.isatty():
            _confirm(f"Delete {options.delete} with all API keys, conversations and files?")
        asyncio.run(_carry_out(options, settings))
    except ApiError as error:
        return _refuse(error.message)
    except SQLAlchemyError as error:
        return _refuse(f"The database cannot be used: {str(error).splitlines()[0]}")
    except OSError as error:
        return _refuse(f"{error.filename or settings.DATA_DIR}: {error.strerror}")
    except (EOFError, KeyboardInterrupt):
        return _refuse("Nothing was changed.")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM}.py",
        description="Make and change accounts, whether the servers are running or not. Without options: makes one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    new = parser.add_argument_group("a new account")
    new.add_argument("--username", metavar="NAME", help="1 to 64 of: letters, digits and . _ @ -")
    new.add_argument("--role", choices=("user", "admin"), help="what the account may do (default: user)")
    change = parser.add_argument_group("existing accounts").add_mutually_exclusive_group()
    change.add_argument("--list", action="store_true", help="show all accounts")
    change.add_argument("--reset-password", metavar="NAME", help="set a new password; ends all tokens and any lock-out")
    change.add_argument("--disable", metavar="NAME", help="end all tokens and let nobody in; keeps the data")
    change.add_argument("--enable", metavar="NAME", help="undo --disable")
    change.add_argument("--make-key", metavar="NAME", help="print a new API key of this account")
    change.add_argument("--delete", metavar="NAME", help="remove the account, its keys, conversations and files")
    more = parser.add_argument_group("more")
    more.add_argument(
        "--password-stdin", action="store_true", help="read the password from the first line of the input"
    )
    more.add_argument("--key-name", metavar="TEXT", default="command line", help="what --make-key calls the key")
    more.add_argument("--forwards-users", action="store_true", help="--make-key: the key of a chat UI, see README")
    more.add_argument("--yes", action="store_true", help="--delete does not ask")
    return parser


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    changes = (options.reset_password, options.disable, options.enable, options.make_key, options.delete)
    options.creates = not options.list and all(name is None for name in changes)
    if not options.creates and (options.username or options.role):
        parser.error("--username and --role are for a new account")
    if options.forwards_users and options.make_key is None:
        parser.error("--forwards-users goes with --make-key")
    if options.password_stdin and not options.creates and options.reset_password is None:
        parser.error("--password-stdin goes with a new account or with --reset-password")
    if options.creates and options.password_stdin and not options.username:
        parser.error("--password-stdin needs --username")
    asks = (options.creates or options.reset_password is not None) and not options.password_stdin
    if asks and not sys.stdin.isatty():
        parser.error("there is no terminal to ask for a password: use --password-stdin")


async def _carry_out(options: argparse.Namespace, settings: Settings) -> None:
    async with _open(settings) as (accounts, user_data):
        users = accounts.users
        if options.creates:
            user = await users.create(options.username, options.password, options.role)
            where = make_url(settings.database_url).render_as_string(hide_password=True)
            print(f"Made {user.username} ({user.role}) in {where}")
        elif options.list:
            await _print_accounts(accounts)
        elif options.reset_password is not None:
            user = await users.update(options.reset_password, password=options.password)
            await accounts.failures.clear(user.username)
            print(f"{user.username} has a new password; the tokens of before have ended.")
        elif options.disable is not None:
            user = await users.update(options.disable, disabled=True, keep_an_admin=False)
            print(f"{user.username} is disabled.")
        elif options.enable is not None:
            user = await users.update(options.enable, disabled=False)
            print(f"{user.username} is enabled.")
        elif options.make_key is not None:
            user = await users.get(options.make_key)
            key_options = KeyOptions(forwards_users=options.forwards_users)
            _, key = await accounts.api_keys.create(user.username, options.key_name, key_options)
            print(key)
            if user.disabled:
                print(f"{PROGRAM}: {user.username} is disabled: the key works once it is enabled.", file=sys.stderr)
        else:
            user = await users.delete(options.delete, delete_data=user_data.delete, keep_an_admin=False)
            await accounts.failures.clear(user.username)
            print(f"{user.username} is deleted.")


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[tuple[Accounts, UserData]]:
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        await database.open()
        stack.push_async_callback(database.close)
        sessions = Sessions(database, settings.DATA_DIR)
        stack.push_async_callback(sessions.close)
        drafts = Drafts(settings.DATA_DIR)
        stack.push_async_callback(drafts.close)
        files = Files(database, drafts, settings.DATA_DIR, quota_bytes=settings.USER_FILES_MB * 2**20)
        accounts = await stack.enter_async_context(open_accounts(settings, database))
        yield accounts, UserData(sessions, files, settings.DATA_DIR)


async def _print_accounts(accounts: Accounts) -> None:
    print(f"{'username':<32} {'role':<6} {'state':<9} made")
    offset = 0
    while page := await accounts.users.list(limit=PAGE, offset=offset):
        for user in page:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(user.created_at))
            print(f"{user.username:<32} {user.role:<6} {'disabled' if user.disabled else 'enabled':<9} {made}")
        offset += PAGE


def _read_password() -> str:
    line = sys.stdin.buffer.readline()
    return os.fsdecode(line).rstrip("\r\n")


def _ask_password() -> str:
    while True:
        password = _ask("Password (hidden): ", getpass.getpass, check_password)
        if getpass.getpass("The same again: ") == password:
            return password
        print("The two differ.", file=sys.stderr)


def _ask_role() -> str:
    def check(role: str) -> None:
        if role not in {"", "user", "admin"}:
            raise ApiError("Answer user or admin.")

    return _ask("Role, user or admin [user]: ", input, check) or "user"


def _ask(prompt: str, read: Callable[[str], str], check: Callable[[str], None]) -> str:
    while True:
        answer = read(prompt)
        try:
            check(answer)
            return answer
        except ApiError as error:
            print(error.message, file=sys.stderr)


def _confirm(question: str) -> None:
    if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
        raise EOFError


def _refuse(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
