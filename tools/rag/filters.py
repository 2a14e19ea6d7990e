"""Filters, under the name that this room knows them by."""

from backend.core.documents.filters import Filter as Filter
from backend.core.documents.filters import parse_filter as parse_filter
