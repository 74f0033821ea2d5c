import torch

from mixtura.core.content import content_order, numbered


def table(n=300, d=4, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_the_order_is_that_of_the_rows_wherever_they_stand():
    for dtype in (torch.float32, torch.float64):
        x = table(dtype=dtype)
        order, content = content_order(x, 0)
        assert sorted(order.tolist()) == list(range(300)) and len(content.unique()) == 300
        moved = torch.randperm(300, generator=torch.Generator().manual_seed(1))
        assert torch.equal(x[moved][content_order(x[moved], 0)[0]], x[order])
        assert not torch.equal(content_order(x, 1)[0], order)


def test_equal_rows_have_one_content_and_stand_together():
    x = table()
    x[::3] = x[7]
    x[5] = -0.0
    x[8] = 0.0
    order, content = content_order(x, 0)
    for i in range(300):
        assert torch.equal(content == content[i], (x == x[i]).all(1))
    blocks = 1 + int((content[order].diff() != 0).sum())
    assert blocks == len(content.unique())


def test_a_row_more_or_less_often_leaves_the_order_as_it_is():
    x = table(50)
    order = content_order(x, 0)[0]
    twice = content_order(x.repeat(2, 1), 0)[0]
    assert torch.equal(x.repeat(2, 1)[twice], x[order].repeat_interleave(2, 0))


def test_units_do_not_matter():
    x = torch.cat([table(), torch.arange(300)[:, None] % 17 / 16], 1)  # round shares of a range, too
    for scale in (1000.0, 1e-3, 3.7):
        factor = torch.ones(5, dtype=x.dtype)
        factor[[1, 4]] = scale
        assert torch.equal(content_order(x * factor, 0)[0], content_order(x, 0)[0])


def test_one_feature_no_row_and_constant_rows():
    for x in (table(40, 1), table(0), torch.ones(9, 3), table(40, 1).T.contiguous().T):
        order, content = content_order(x, 0)
        assert sorted(order.tolist()) == list(range(len(x)))
        assert len(content.unique()) == len(x.unique(dim=0))


def test_numbers_start_at_zero():
    assert numbered(torch.tensor([7, -2, 7, 40])).tolist() == [1, 0, 1, 2]
