from math import e, exp, log

import pytest
import torch

from evaluation.metrics import attention, attention_error_per_layer, attention_outputs, logit_error, nmse


def logits(*rows: list[float]) -> torch.Tensor:
    """Of given probabilities."""
    return torch.tensor(rows).log()


def test_nothing_differs():
    x = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    error = logit_error(x, x, list(range(8)))
    assert (error.kl, error.kl_standard_error, error.top1_agreement) == (0, 0, 1)


def test_kl_goes_from_the_exact_distribution_to_the_approximate_one():
    exact, approximate = logits([0.5, 0.5], [0.75, 0.25]), logits([0.75, 0.25], [0.75, 0.25])
    error = logit_error(approximate, exact, [0, 0])
    assert error.kl == pytest.approx((0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25)) / 2)
    assert error.kl != pytest.approx((0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)) / 2)


def test_a_constant_added_to_logits_changes_nothing():
    x = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert logit_error(x + 3, x, [0] * 8).kl == pytest.approx(0, abs=1e-12)


def test_agreement_and_perplexity():
    exact = logits([0.6, 0.4], [0.4, 0.6], [0.6, 0.4], [0.6, 0.4])
    approximate = logits([0.8, 0.2], [0.2, 0.8], [0.2, 0.8], [0.5, 0.5])
    error = logit_error(approximate, exact, [0, 1, 1, 0])
    assert error.top1_agreement == 0.75
    # Rows 0, 1 and 2 speak of tokens 1, 1 and 0; the last row speaks of a token that is not there.
    assert error.perplexity == pytest.approx(exp(-(log(0.2) + log(0.8) + log(0.2)) / 3))


def test_perplexity_of_ignorance_is_the_vocabulary():
    assert logit_error(torch.zeros(4, 50), torch.zeros(4, 50), [1, 2, 3, 4]).perplexity == pytest.approx(50)


def test_nmse():
    x = torch.tensor([3.0, 4.0])
    assert nmse(x, x) == 0
    assert nmse(torch.tensor([3.0, 3.0]), x) == pytest.approx(1 / 25)
    assert nmse(torch.zeros(2), x) == 1


def test_attention_follows_its_definition():
    generator = torch.Generator().manual_seed(0)
    queries, key, value = (torch.randn(*shape, generator=generator) for shape in ((6, 3, 8), (2, 5, 8), (2, 5, 4)))
    output = attention(queries, key, value)
    assert output.shape == (6, 3, 4)
    for head in range(6):
        for query in range(3):
            scores = [exp(float(queries[head, query] @ key[head // 3, token]) / 8**0.5) for token in range(5)]
            expected = sum(score * value[head // 3, token] for token, score in enumerate(scores)) / sum(scores)
            assert torch.allclose(output[head, query], expected, atol=1e-5)


def test_attention_error_is_a_relative_distance():
    generator = torch.Generator().manual_seed(0)
    queries, key, value = torch.randn(4, 3, 8, generator=generator), torch.randn(2, 5, 8, generator=generator), torch.ones(2, 5, 4)
    # Whatever the weights, the output is the value: e times as large, its distance is e - 1.
    exact = attention_outputs([queries], [(key, value)])
    approximate = attention_outputs([queries], [(key * 2, value * e)])
    assert attention_error_per_layer(approximate, exact) == pytest.approx([e - 1], rel=1e-5)
    assert attention_error_per_layer(exact, exact) == [0]
