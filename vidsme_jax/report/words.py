"""Words of a report: the claim, the glossary."""

BY_CHANCE = (
    "Three 95 % intervals are looked at (motion, brightness, both), so about one "
    "matched corpus in six is flagged by chance. Found or not, other differences "
    "between the sets (scene content, length, codec, source, date) are not covered."
)
CLAIM = (
    "This report ranks videos: it says how well scores order members above "
    "non-members on this corpus. No score of one video proves that it was, or was not, "
    "in the training data. One score, the headline, was declared before the results "
    "were seen; all others are exploratory, and the best of many is too good by "
    "selection. The figures hold for these videos, this model and these settings."
)

GLOSSARY = {
    "Member": "A video declared to have been in the model's training data.",
    "Non-member": "A video declared not to have been in it.",
    "Suspect": "A video whose membership is unknown.",
    "Calibration clip": "A known non-member, of the same kind as the suspects, that "
    "they are ranked against.",
    "Score": "A number computed from the model's next-token distributions while it "
    "watches a video.",
    "Headline score": "The one score chosen before the results were seen.",
    "AUC": "The chance that a random member ranks above a random non-member. 0.5 is "
    "guessing, 1 is perfect, below 0.5 the order is reversed.",
    "FPR, false-positive rate": "The share of non-members wrongly called members.",
    "TPR, true-positive rate": "The share of members called members; it is given at a "
    "threshold that keeps the false-positive rate at or below a stated level. Refused "
    "where there are too few non-member videos to see so small a rate.",
    "Accuracy": "The mean of TPR and 1 - FPR at the best threshold. The threshold is "
    "chosen on the same labels, so the number is optimistic.",
    "Interval": "Written [low, high]: values that the data are compatible with at "
    "95 % confidence. Rows that show the same video count as one observation.",
    "phi, motion": "The variance of the optical flow between consecutive sampled "
    "frames, averaged: how much a video moves.",
    "b, brightness": "The standard deviation of the frames' mean brightness: how much "
    "a video flickers or changes.",
    "q": "The order of the entropy, 1 for the most motion, 2 for the least. It follows "
    "from the video alone.",
    "r": "The degree of the entropy, 1 for the steadiest brightness. It follows from "
    "the video alone.",
    "SME, Sharma-Mittal entropy": "How undecided the model is about the next token, "
    "weighted by q and r.",
    "Vid-SME": "SME of a video less SME of the same video played backwards, averaged "
    "over the rows where it is lowest (arXiv 2506.03179).",
    "Blind baseline": "A classifier that sees motion and brightness only, never the "
    "model. Cross-fitted: each video is judged by a fit that has not seen it.",
    "Shift": "Members and non-members differ in their content, so that they can be "
    "separated without the model.",
    "p-value": "The share of calibration clips, counting the suspect itself, that rank "
    "at least as high as the suspect.",
    "False discovery rate": "The expected share of mistakes among the suspects listed, "
    "where the calibration clips are a fair comparison (Benjamini-Hochberg).",
}
