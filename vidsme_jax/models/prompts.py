"""The system prompts of the paper's release, by name."""

_START = (
    "Carefully watch this video and pay attention to every detail. Based on your "
    "observations, "
)
SYSTEM = {
    "mcq": _START + "select the best option that accurately addresses the question.",
    "caption": _START + "answer the given questions.",
}
