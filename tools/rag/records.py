"""The values of collections, under the name that this room knows them by."""

from backend.core.documents.records import Added as Added
from backend.core.documents.records import Attributes as Attributes
from backend.core.documents.records import AttributeValue as AttributeValue
from backend.core.documents.records import Collection as Collection
from backend.core.documents.records import Document as Document
from backend.core.documents.records import Passage as Passage
from backend.core.documents.records import Progress as Progress
from backend.core.documents.records import Stage as Stage
from backend.core.documents.records import Stats as Stats
from backend.core.documents.records import Verification as Verification
