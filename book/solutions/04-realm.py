# %% [markdown]
# # REALM: solutions
#
# Solutions of the exercises of chapter 4 that are code.

# %%
from collections import defaultdict

import torch
from exercises import realm as check

# %% [markdown]
# ## Two passages with the answer
#
# One step is the closed form of the gradient. As long as a passage's probability is small, its gradient is small
# too: $r(z)$ has the factor $p(z \mid x)$.


# %%
def my_ascent(scores, given, steps, rate):
    for _ in range(steps):
        prior = scores.softmax(-1)
        after = prior * given / (prior * given).sum()
        scores = scores + rate * (after - prior)
    return scores.softmax(-1)


check.ascent(my_ascent)

# %% [markdown]
# The reader reads the answer equally well from the first two passages, and yet they do not rise alike:

# %%
start = torch.tensor([0.2, 0.1, 0.4, 0.3]).log()
given = torch.tensor([0.6, 0.6, 0.01, 0.01])
for steps in (0, 1, 5, 20, 200):
    prior = my_ascent(start, given, steps, 0.5)
    print(
        f"after {steps:>3} steps {prior.numpy().round(2)}",
        f"ratio of the first two {prior[0] / prior[1]:.1f}",
    )

# %% [markdown]
# Both rise until they share all of the prior, and the one that began ahead ends further ahead. The likelihood is
# then the same however they share it, so nothing brings the second one up. Had the posterior become the prior at
# once, as in expectation maximisation, their ratio would have stayed as it was.

# %% [markdown]
# ## The probability of a string
#
# Spans with the same tokens are the same string, so their probabilities are added.


# %%
def my_string_probs(tokens, probs):
    total = defaultdict(float)
    for start in range(len(tokens)):
        for width, probability in enumerate(probs[start]):
            end = start + width
            if end < len(tokens):
                total[tuple(tokens[start : end + 1])] += probability
    return total


check.string_probs(my_string_probs)

# %% [markdown]
# ## A step that misleads
#
# A score's gradient is posterior minus prior, and that of the reader's logit for a passage is the passage's
# posterior times $1 - p(y \mid z, x)$. If the wrong passage has a large prior, it has most of the posterior even
# where $y$ is less probable with it. So the reader is changed mostly for the wrong passage: it learns to guess $y$
# from what does not say it.


# %%
def my_toy():
    return 0.1, 0.3, 0.2


check.joint_step(my_toy)

# %%
prior, given = torch.tensor([0.1, 0.9]), torch.tensor([0.3, 0.2])
after = prior * given / (prior * given).sum()
print("posterior                  ", after.numpy().round(3))
print("gradient of the scores     ", (after - prior).numpy().round(3))
print("gradient of reader's logits", (after * (1 - given)).numpy().round(3))
new_prior = (prior.log() + after - prior).softmax(-1)
new_given = (given.logit() + after * (1 - given)).sigmoid()
likelihood = [(prior * given).sum(), (new_prior * new_given).sum()]
print("p(y | x)                   ", [round(p.item(), 3) for p in likelihood])
print(
    "posterior after the step   ",
    (new_prior * new_given / likelihood[1]).numpy().round(3),
)

# %% [markdown]
# The right passage's score rises, and so does the likelihood, but its posterior falls. This is why REALM starts from
# a retriever that finds something useful and from a reader that can use it (section 3.4 of the paper).
