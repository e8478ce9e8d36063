"""Hostile clips: lists of other files, sizes beyond reason, no files at all, damage.

A case passes the path of the clip. Beside some lie files that the clip names: opening
one of them is what must not happen. `SECRET` is a clip in a folder above.
"""

import contextlib
import fractions
import io
import os
import pathlib
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator

import av
from damaged import CLIPS, damaged

from generators import EITHER, HONEST, Case, written

SECRET = "secret.mp4"


def cases(seed: int = 0, random: int = 12) -> Iterator[Case]:
    """Yields cases; `random` of them damaged by the seed."""
    yield from (Case(f"honest {k}", _copied(clip), HONEST) for k, clip in _honest())
    yield from _lists()
    yield from _sizes()
    yield from _no_clips()
    yield from _names()
    sources = [path.read_bytes() for path in CLIPS[:6]]
    for k in range(random):
        data = damaged(1000 * seed + k, sources)
        yield Case(f"damage {k}", written("a.mp4", data), EITHER)


def _honest() -> Iterator[tuple[int, pathlib.Path]]:
    return enumerate(CLIPS[10:14])


def _copied(clip: pathlib.Path) -> Callable[[pathlib.Path], pathlib.Path]:
    return written("a.mp4", clip.read_bytes())


# ------------------------------------------------------------- lists of other files


def _lists() -> Iterator[Case]:
    for name, (suffix, make) in _LISTS.items():
        for shown in (suffix, *(("mp4",) if suffix != "mp4" else ())):
            yield Case(f"{name}, named .{shown}", _listing(make, shown))
    yield Case("a pattern of pictures", _pattern("q%d.png"))
    yield Case("a pattern with zeros", _pattern("q%03d.png"))
    yield Case("a pattern as a glob", _pattern("q?.png"))
    yield Case("a playlist over a FIFO", _over_a_fifo)
    yield Case("a playlist of itself", _listing(lambda _: _playlist("x.m3u8"), "m3u8"))
    yield Case("a playlist named as a clip is", _listing(_hls("{secret}"), "ts"))
    yield Case("a clip named as a playlist is", written("a.m3u8", _clip()), EITHER)
    yield Case("a film with its tracks elsewhere", _elsewhere, EITHER)


def _clip() -> bytes:
    return CLIPS[0].read_bytes()


def _playlist(*names: str) -> str:
    parts = "".join(f"#EXTINF:2,\n{name}\n" for name in names)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n"
    return f"{head}{parts}#EXT-X-ENDLIST\n"


def _hls(name: str) -> Callable[[str], str]:
    return lambda secret: _playlist(name.replace("{secret}", secret))


def _master(secret: str) -> str:
    return f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{secret}.m3u8\n"


def _with_a_key(secret: str) -> str:
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{secret}",IV=0x{"0" * 32}\n'
    return _playlist("beside.mp4").replace("#EXTINF", f"{key}#EXTINF", 1)


def _with_a_map(secret: str) -> str:
    return _playlist("beside.mp4").replace(
        "#EXTINF", f'#EXT-X-MAP:URI="{secret}"\n#EXTINF', 1
    )


def _dash(secret: str) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-main:20'
        '11"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1" width="64" height="64"><BaseURL>{secret}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )


def _imf(secret: str) -> str:
    return (
        '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schem'
        'as/2067-3/2016"><Id>urn:uuid:0eb3d1b9-b77b-4d3f-bbe5-7c69b15dca85</Id>'
        f"<ContentTitle>{secret}</ContentTitle><EditRate>25 1</EditRate>"
        "<SegmentList></SegmentList></CompositionPlaylist>"
    )


# By name: the suffix, and the text given the path of the secret clip.
_LISTS: dict[str, tuple[str, Callable[[str], str | bytes]]] = {
    "hls, absolute": ("m3u8", _hls("{secret}")),
    "hls, a neighbour": ("m3u8", _hls("beside.mp4")),
    "hls, up": ("m3u8", _hls(f"../{SECRET}")),
    "hls, file:": ("m3u8", _hls("file:{secret}")),
    "hls, file://": ("m3u8", _hls("file://{secret}")),
    "hls, fd:": ("m3u8", _hls("fd:0")),
    "hls, pipe:": ("m3u8", _hls("pipe:0")),
    "hls, data:": ("m3u8", _hls("data:video/mp4;base64,AAAA")),
    "hls, concat:": ("m3u8", _hls("concat:{secret}|{secret}")),
    "hls, concatf:": ("m3u8", _hls("concatf:{secret}")),
    "hls, subfile:": ("m3u8", _hls("subfile,,start,0,end,9999,,:{secret}")),
    "hls, crypto:": ("m3u8", _hls("crypto:{secret}")),
    "hls, cache:": ("m3u8", _hls("cache:{secret}")),
    "hls, http:": ("m3u8", _hls("http://127.0.0.1:9/a.ts")),
    "hls, a master playlist": ("m3u8", _master),
    "hls, a key": ("m3u8", _with_a_key),
    "hls, a map": ("m3u8", _with_a_map),
    "hls, no end": ("m3u8", lambda x: _playlist(x).replace("#EXT-X-ENDLIST", "")),
    "hls, a byte-order mark": ("m3u8", lambda x: "\ufeff" + _playlist(x)),
    "m3u, old": ("m3u8", lambda x: f"#EXTM3U\n{x}\n"),
    "ffconcat, a neighbour": ("ffconcat", lambda _: _concat("beside.mp4")),
    "ffconcat, a link": ("ffconcat", lambda _: _concat("link.mp4")),
    "ffconcat, absolute": ("ffconcat", lambda x: _concat(x)),
    "ffconcat, a pipe": ("ffconcat", lambda _: _concat("pipe:0")),
    "concat without its head": ("txt", lambda _: "file beside.mp4\n"),
    "dash": ("mpd", _dash),
    "dash, a neighbour": ("mpd", lambda _: _dash("beside.mp4")),
    "dash, an entity": (
        "mpd",
        lambda x: _dash("&e;").replace(
            "<MPD", f'<!DOCTYPE MPD [<!ENTITY e SYSTEM "file://{x}">]><MPD', 1
        ),
    ),
    "imf": ("xml", _imf),
    "sdp": (
        "sdp",
        lambda _: (
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        ),
    ),
    "rtsp, a redirection": ("rtsp", lambda x: f"RTSPtextRTSP://127.0.0.1:9/{x}"),
    "asx": (
        "asx",
        lambda x: f'<asx version="3.0"><entry><ref href="{x}"/></entry></asx>',
    ),
    "smil": ("smil", lambda x: f'<smil><body><video src="{x}"/></body></smil>'),
    "pls": ("pls", lambda x: f"[playlist]\nFile1={x}\nNumberOfEntries=1\nVersion=2\n"),
    "webm, a dash manifest": (
        "xml",
        lambda x: f"webm_dash_manifest\n<BaseURL>{x}</BaseURL>",
    ),
    "vobsub": (
        "idx",
        lambda _: (
            "# VobSub index file, v7 (do not modify this line!)\nsize: 64x64\n"
            "id: en, index: 0\ntimestamp: 00:00:01:101, filepos: 000000000\n"
        ),
    ),
    "avisynth": ("avs", lambda x: f'DirectShowSource("{x}")\n'),
    "vapoursynth": ("vpy", lambda x: f"open({x + '.was_run'!r}, 'w').close()\n"),
    "ffmetadata": ("ffmeta", lambda _: ";FFMETADATA1\ntitle=a\n[CHAPTER]\nEND=9\n"),
    "lavfi": ("lavfi", lambda x: f"movie='{x}'[out0]"),
    "lavfi, a source": ("lavfi", lambda _: "testsrc=size=64x64:rate=25[out0]"),
    "mpsub": ("sub", lambda _: "FORMAT=TIME\n\n0 1\nno video\n"),
    "an edit list of MLT": ("mlt", lambda x: f'<mlt><producer resource="{x}"/></mlt>'),
    "svg": (
        "svg",
        lambda x: (
            '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
            f'<image href="{x}" width="9" height="9"/></svg>'
        ),
    ),
}


def _concat(name: str) -> str:
    return f"ffconcat version 1.0\nfile '{name}'\n"


def _listing(make: Callable[[str], str | bytes], suffix: str):
    """Writes a list beside a clip and a link, below the secret one."""

    def build(folder: pathlib.Path) -> pathlib.Path:
        secret = folder / SECRET
        secret.write_bytes(CLIPS[1].read_bytes())
        (folder / f"{SECRET}.m3u8").write_text(_playlist(str(secret)))
        inside = folder / "inside"
        inside.mkdir()
        (inside / "beside.mp4").write_bytes(CLIPS[2].read_bytes())
        (inside / "link.mp4").symlink_to(secret)
        (inside / "x.sub").write_bytes(CLIPS[2].read_bytes())  # Of a vobsub.
        path, text = inside / f"x.{suffix}", make(str(secret))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return build


def _pattern(name: str):
    """Writes a file whose name is a pattern of names that are links outside."""

    def build(folder: pathlib.Path) -> pathlib.Path:
        inside = folder / "inside"
        inside.mkdir()
        for k in range(3):
            (folder / f"secret{k}.png").write_bytes(_png(16, 16))
            for digits in (f"{k}", f"{k:03}"):
                (inside / f"q{digits}.png").symlink_to(f"../secret{k}.png")
        (inside / name).write_bytes(b"any")
        return inside / name

    return build


def _png(width: int, height: int) -> bytes:
    with io.BytesIO() as file:
        with av.open(file, "w", format="image2pipe") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
            container.mux(stream.encode(av.VideoFrame(width, height, "rgb24")))
            container.mux(stream.encode())
        return file.getvalue()


def _over_a_fifo(folder: pathlib.Path) -> pathlib.Path:
    os.mkfifo(folder / "seg.ts")
    (folder / "x.m3u8").write_text(_playlist("seg.ts"))
    return folder / "x.m3u8"


def _elsewhere(folder: pathlib.Path) -> pathlib.Path:
    """An mp4 whose data reference names another file."""
    inside = folder / "inside"
    inside.mkdir()
    (folder / SECRET).write_bytes(CLIPS[1].read_bytes())
    data = bytearray(_clip())
    name = f"../{SECRET}\0".encode()
    at = data.index(b"url \0\0\0\1")  # Its flag says that the data are in this file.
    entry = b"url \0\0\0\0" + name
    data[at : at + 8] = entry
    grown = len(entry) - 8
    for box in (b"url ", b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(box, 0, at + 4) - 4
        size = struct.unpack(">I", data[place : place + 4])[0] + grown
        data[place : place + 4] = struct.pack(">I", size)
    path = inside / "a.mov"
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------- sizes


def _sizes() -> Iterator[Case]:
    for width, height, frames in ((20000, 2, 2), (2, 20000, 2), (60000, 600, 1)):
        name = f"y4m of {width}x{height}"
        yield Case(name, written("a.y4m", _y4m(width, height, frames)), EITHER)
    for size in ("1000000000x2", "2147483647x2147483647", "0x0", "-1x5", "99999x99999"):
        width, height = size.split("x")
        head = f"YUV4MPEG2 W{width} H{height} F25:1 C420jpeg\nFRAME\n".encode()
        yield Case(f"y4m of {size}, its head alone", written("a.y4m", head))
    gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0"
    yield Case("a GIF of 65535x65535", written("a.gif", gif + b"\2\2D\1\0;"))
    sizes = 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24
    head = struct.pack("<IHHIIiiHHIIiiII", *sizes, *[0] * 6)
    yield Case("a BMP of 2^30 by 2^30", written("a.avi", b"BM" + head))
    data = bytearray(_clip())
    at = data.index(b"avc1") + 28
    data[at : at + 4] = struct.pack(">HH", 65535, 65535)
    yield Case("an mp4 that says 65535x65535", written("a.mp4", bytes(data)), EITHER)
    for box, at in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        data = bytearray(_clip())
        place = data.index(box) + at
        data[place : place + 4] = b"\xff" * 4
        name = f"an mp4 whose {box.decode()} counts to 2^32"
        yield Case(name, written("a.mp4", bytes(data)), EITHER)


def _y4m(width: int, height: int, frames: int) -> bytes:
    head = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode()
    frame = bytes(width * height) + b"\x80" * (2 * (width // 2) * (height // 2))
    return head + (b"FRAME\n" + frame) * frames


# ------------------------------------------------------------------ what is no clip


def _no_clips() -> Iterator[Case]:
    yield Case("no bytes", written("a.mp4", b""))
    yield Case("a text", written("a.mp4", "This is not a video.\n"))
    yield Case("a text with escapes", written("a.mp4", "\x1b]0;owned\x07\x1b[2J"))
    yield Case("a page", written("a.mp4", "<!DOCTYPE html><script>alert(1)</script>"))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield Case("a pointer", written("a.mp4", pointer))
    yield Case("zeros", written("a.mp4", bytes(100_000)))
    yield Case("one byte", written("a.mp4", b"\0"))
    yield Case("a thousand times ftyp", written("a.mp4", b"\0\0\0\x14ftypisom" * 1000))
    yield Case("a folder", _folder)
    yield Case("a FIFO", _fifo)
    yield Case("a socket", _socket)
    yield Case("a link to /dev/zero", _link("/dev/zero"))
    yield Case("a link to /dev/stdin", _link("/dev/stdin"))
    yield Case("a link to nothing", _link("nothing.mp4"))
    yield Case("a link to itself", _link("a.mp4"))
    yield Case("a file that may not be there", lambda folder: folder / "gone.mp4")
    yield Case("no end of nothing", _sparse)


def _folder(folder: pathlib.Path) -> pathlib.Path:
    (folder / "a.mp4").mkdir()
    return folder / "a.mp4"


def _fifo(folder: pathlib.Path) -> pathlib.Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


def _socket(folder: pathlib.Path) -> pathlib.Path:
    before = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        try:
            os.chdir(folder)  # The path of a socket is at most 108 bytes.
            made.bind("a.mp4")
        finally:
            os.chdir(before)
    return folder / "a.mp4"


def _link(to: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        (folder / "a.mp4").symlink_to(to)
        return folder / "a.mp4"

    return build


def _sparse(folder: pathlib.Path) -> pathlib.Path:
    with (folder / "a.mp4").open("wb") as file:
        file.truncate(1 << 36)  # 64 GiB of zeros.
    return folder / "a.mp4"


# ------------------------------------------------------------------------- names


def _names() -> Iterator[Case]:
    """Honest clips under names that have broken what writes or prints them."""
    for what, name in NAMES.items():
        yield Case(f"named {what}", _renamed(name), EITHER)


NAMES: dict[str, bytes] = {
    "in no UTF-8": b"\xff\xfe.mp4",
    "in Latin-1": "größer.mp4".encode("latin-1"),
    "with 255 bytes": b"n" * 251 + b".mp4",
    "with a newline": b"a\nb.mp4",
    "with escapes": b"\x1b]0;owned\x07\x1b[2J.mp4",
    "with a bell and a delete": b"\x07\x7f.mp4",
    "like an option": b"--config.workers=99.mp4",
    "like -i": b"-i.mp4",
    "like a protocol": b"concat:a.mp4|b.mp4",
    "like a pipe": b"pipe:0.mp4",
    "like an address": b"tfds:a.mp4",
    "like a segment": b"a.mp4#t=1,2",
    "like markup": b"<img src=x onerror=alert(1)>.mp4",
    "like a formula": b"=cmd|' '!A0.mp4",
    "like a format": b"%s%n{0.__class__}.mp4",
    "backwards": "\u202egpj.mp4".encode(),
    "with a line separator": "a\u2028b.mp4".encode(),
    "with quotes": b"'\".mp4",
    "with a C1 control": "a\x9b31mb.mp4".encode(),
}


def _renamed(name: bytes) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        path = folder / os.fsdecode(name)
        path.write_bytes(CLIPS[5].read_bytes())
        return path

    return build


# -------------------------------------------------------------------- containers


def containers() -> list[bytes]:
    """Returns clips of the demo, with their index at either end, and of others."""
    found = [path.read_bytes() for path in CLIPS[:6]]
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, mux in (
            ("fast.mp4", "", {"movflags": "faststart"}),
            ("a.mkv", "", {}),
            ("a.ts", "", {}),
            ("a.flv", "", {}),
            ("a.webm", "libvpx", {}),
            ("a.avi", "mpeg4", {}),
            ("a.mpg", "mpeg2video", {}),
        ):
            path = pathlib.Path(folder, name)
            with contextlib.ExitStack() as held:
                source = held.enter_context(av.open(str(CLIPS[0])))
                to = held.enter_context(av.open(str(path), "w", options=mux))
                _copy(source, to, codec)
            found.append(path.read_bytes())
    return found


def _copy(source, to, codec: str) -> None:
    given = source.streams.video[0]
    if not codec:
        stream = to.add_stream_from_template(given)
        for packet in source.demux(given):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
        return
    stream = to.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 72, 72, "yuv420p"
    for number, frame in enumerate(source.decode(given)):
        picture = frame.reformat(72, 72, "yuv420p")
        picture.pts, picture.time_base = number, fractions.Fraction(1, 25)
        to.mux(stream.encode(picture))
    to.mux(stream.encode())
