"""The allowed containers, and the file types that are refused by name.

Some FFmpeg demuxers open further files that the first one names: segment lists,
manifests, picture patterns. None of these is allowed here, and FFmpeg gets no protocol
to open another file (`opening.py`). A list would be scored under its own content hash,
regardless of the videos that it names.
"""

# FFmpeg's names. Each of these demuxers reads a single file.
_DEMUXERS = (
    # Containers.
    "asf",
    "asf_o",
    "avi",
    "dhav",
    "dv",
    "flv",
    "gxf",
    "ivf",
    "kux",
    "live_flv",
    "lxf",
    "matroska",
    "mov",
    "mpeg",
    "mpegts",
    "mxf",
    "nsv",
    "nut",
    "nuv",
    "ogg",
    "pva",
    "rm",
    "swf",
    "ty",
    "wtv",
    # Animated pictures.
    "apng",
    "gif",
    "jpegxl_anim",
    "webp",
    "yuv4mpegpipe",
    # One picture: a video of one frame.
    "bmp_pipe",
    "jpeg_pipe",
    "png_pipe",
    "tiff_pipe",
    "webp_pipe",
    # Elementary streams.
    "av1",
    "avs2",
    "avs3",
    "cavsvideo",
    "dirac",
    "dnxhd",
    "evc",
    "h261",
    "h263",
    "h264",
    "hevc",
    "m4v",
    "mjpeg",
    "mpegvideo",
    "obu",
    "vc1",
    "vvc",
)
ALLOWED = {"format_whitelist": ",".join(_DEMUXERS)}  # Options of `av.open`.

_NAMES_OTHERS = "which names other files: give the video itself"
# The first bytes of refused files, in lower case, after white space.
_LISTS = {
    b"#extm3u": "an HLS playlist",
    b"ffconcat version": "a list of files for FFmpeg (ffconcat)",
    b"<mpd": "a DASH manifest",
    b"<smil": "a SMIL playlist",
    b"<asx": "an ASX playlist",
    b"<smoothstreamingmedia": "a Smooth Streaming manifest",
    b"[playlist]": "a PLS playlist",
    b"[reference]": "a playlist of Windows Media",
    b"rtsptext": "an address of QuickTime",
    b"v=0": "an SDP description",
    b"# vobsub index file": "a VobSub index",
    b"<compositionplaylist": "a playlist of an IMF package",
    b"<assetmap": "the list of files of an IMF package",
}
_XML_PROLOG = ("<?xml", "<!--", "<!doctype")


def refused(head: bytes) -> str:
    """Returns the type of a refused file and the remedy, by its first bytes, or "".

    Example:
      >>> refused(b"#EXTM3U\\n#EXTINF:2,\\n/videos/a.mp4")[:16]
      'an HLS playlist,'
    """
    text = head.decode("utf-8-sig", errors="ignore").lstrip().lower()
    while text.startswith(_XML_PROLOG):
        end = "-->" if text.startswith("<!--") else ">"
        text = text.partition(end)[2].lstrip()
    for begin, kind in _LISTS.items():
        if text.startswith(begin.decode()):
            return f"{kind}, {_NAMES_OTHERS}"
    return ""
