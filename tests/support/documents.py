"""Documents as real programs make them, and as somebody makes them who wishes a server ill."""

import datetime
import json
import struct
import zipfile
import zlib
from pathlib import Path

import docx
import openpyxl
import pptx
from PIL import Image
from pptx.util import Inches
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

WORD_XML = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{}</w:body></w:document>'


def make_pdf(path: Path, pages: list[str], *, password: str | None = None) -> Path:
    """Pages of lines; a line that begins with # is also in the outline."""
    canvas = Canvas(str(path), encrypt=StandardEncryption(password) if password else None)
    canvas.setTitle("Bridges of the world")
    canvas.setAuthor("An engineer")
    for number, page in enumerate(pages):
        text = canvas.beginText(72, 720)
        for line in page.splitlines():
            if line.startswith("#"):
                line = line.lstrip("# ")
                canvas.bookmarkPage(f"{number}-{line}")
                canvas.addOutlineEntry(line, f"{number}-{line}")
            text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return path


def make_docx(path: Path) -> Path:
    document = docx.Document()
    document.core_properties.title = "Bridges"
    document.core_properties.author = "An engineer"
    document.add_heading("Bridges", 0)
    document.add_heading("Arches", 1)
    document.add_paragraph("An arch carries its load by compression.")
    document.add_heading("Stone", 2)
    table = document.add_table(rows=0, cols=2)
    for cells in (("Name", "Span"), ("Alpha", "12 m"), ("Beta", "30 m")):
        for cell, text in zip(table.add_row().cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("After the table.", style="List Bullet")
    document.save(str(path))
    return path


def make_pptx(path: Path) -> Path:
    deck = pptx.Presentation()
    for title in ("Bridges", "Arches"):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = f"{title}, first point\n{title}, second point"
        slide.notes_slide.notes_text_frame.text = f"Say something about {title}"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Name", "Span"), ("Alpha", "12 m"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    deck.save(str(path))
    return path


def make_xlsx(path: Path, rows: int = 20) -> Path:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.title = "Sales"
    sheet.append(["Date", "Region", "Amount", "Paid"])
    for number in range(rows):
        day = datetime.date(2024, 1, 1) + datetime.timedelta(number)
        sheet.append([day, ("North", "South")[number % 2], number * 1.5, number % 3 == 0])
    workbook.create_sheet("Notes").append(["Only a line"])
    workbook.save(path)
    return path


def make_zip_bomb(path: Path) -> Path:
    """A Word file whose text unpacks to more than any text has."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("word/document.xml", "w") as member,
    ):
        member.write(WORD_XML.split("{}")[0].encode() + b"<w:p><w:r><w:t>")
        for _ in range(160):
            member.write(b"x" * 2**20)
    return path


def make_xml_bomb(path: Path) -> Path:
    """A Word file whose entities explode to a billion words."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE w:document [<!ENTITY l0 "laugh">{entities}]>'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", doctype + WORD_XML.format("<w:p><w:r><w:t>&l9;</w:t></w:r></w:p>"))
    return path


def make_deep_xml(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", WORD_XML.format("<w:p>" * 100_000 + "</w:p>" * 100_000))
    return path


def make_endless_sheet(path: Path) -> Path:
    """A sheet of two cells that says it is as large as can be, and has them at its ends."""
    make_xlsx(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["xl/worksheets/sheet1.xml"] = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/>'
        b'<sheetData><row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
        b"</sheetData></worksheet>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_huge_png(path: Path, side: int = 100_000) -> Path:
    """A picture whose pixels would take 30 gigabytes, in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(3000))) + chunk(b"IEND", b"")
    )
    return path


def make_pdf_bomb(path: Path) -> Path:
    """A page whose contents are compressed twice, and unpack to 128 MiB of states to be kept."""
    compressor = zlib.compressobj(1)
    once = b"".join([*(compressor.compress(b"q " * 2**19) for _ in range(128)), compressor.flush()])
    data = zlib.compress(once, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R>>",
        b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(data), data),
    ]
    body = b"%PDF-1.4\n"
    for number, content in enumerate(objects, 1):
        body += b"%d 0 obj%s endobj\n" % (number, content)
    path.write_bytes(body + b"trailer<</Root 1 0 R/Size 5>>")
    return path


def make_picture(path: Path, orientation: int = 6) -> Path:
    picture = Image.new("RGB", (80, 20), "white")
    exif = picture.getexif()
    exif[0x0112] = orientation
    exif[0x0110] = "Camera 3000"
    picture.save(path, exif=exif)
    return path


def make_deep_json(path: Path) -> Path:
    path.write_text("[" * 1_000_000 + "]" * 1_000_000)
    return path


def make_wide_csv(path: Path) -> Path:
    path.write_text("\n".join(",".join(f"c{row}_{number}" for number in range(10_000)) for row in range(20)))
    return path


def make_json(path: Path) -> Path:
    people = [{"name": f"Person {number}", "age": number, "tags": ["a", "b"]} for number in range(30)]
    path.write_text(json.dumps({"title": "People", "people": people, "meta": {"source": {"page": 3}}}))
    return path
