"""Which containers are read, and what is refused by name.

FFmpeg has demuxers that open further files by names that they find in the first: lists
of segments, manifests, patterns of pictures. None of these is among those that it may
use here, and the file is given to it without a protocol by which it could open another
(`opening.py`). A list would be scored under its own content hash, whatever the videos
are that it names.
"""

# FFmpeg's names. All of these read one file from its beginning to its end.
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
    # Pictures that move.
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
    # A stream of one codec without a container.
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
ALLOWED = {"format_whitelist": ",".join(_DEMUXERS)}  # Of `av.open`.

_NAMES_OTHERS = "which names other files: give the video itself"
# How files begin that are refused, after white space and in any case.
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
_UNSAID = ("<?xml", "<!--", "<!doctype")


def refused(head: bytes) -> str:
    """Returns what a file is whose head shows that it is refused, or "".

    Example:
      >>> refused(b"#EXTM3U\\n#EXTINF:2,\\n/videos/a.mp4")[:16]
      'an HLS playlist,'
    """
    text = head.decode("utf-8-sig", errors="ignore").lstrip().lower()
    while text.startswith(_UNSAID):  # What may stand before the first element.
        end = "-->" if text.startswith("<!--") else ">"
        text = text.partition(end)[2].lstrip()
    for begin, kind in _LISTS.items():
        if text.startswith(begin.decode()):
            return f"{kind}, {_NAMES_OTHERS}"
    return ""
