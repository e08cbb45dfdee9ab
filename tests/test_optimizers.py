"""Every option of conf/optimizer trains and resumes; Muon against PyTorch's and AdamW."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from seg.config.options import CONF
from seg.optimizers import Muon, inverse_roots

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
EACH = pytest.mark.parametrize("name", OPTIMIZERS)


def _network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.InstanceNorm2d(8, affine=True), torch.nn.Conv2d(8, 1, 1)
    )


def _train(network, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, 8, 8, generator=generator)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(image) - image.abs()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _optimizer(name, network):
    return instantiate(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"), _convert_="all")(network.parameters())


@EACH
def test_training_lowers_the_loss(name):
    network = _network()
    losses = _train(network, _optimizer(name, network), 60)
    assert losses[-1] < 0.9 * losses[0]


@EACH
def test_resumed_training_is_the_same_bit_for_bit(name, tmp_path):
    whole = _network()
    _train(whole, _optimizer(name, whole), 8)
    first = _network()
    optimizer = _optimizer(name, first)
    _train(first, optimizer, 5)
    torch.save([first.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    second = _network()
    optimizer = _optimizer(name, second)
    for target, state in zip((second, optimizer), torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
        target.load_state_dict(state)
    _train(second, optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(1, 32, 864), (3, 24, 24), (2, 1, 9)])
@pytest.mark.parametrize("spread", [0, 4])  # decades between the singular values
def test_roots_of_gram_matrices_give_newton_schulz_as_it_is_written_in_the_paper(shape, spread):
    matrices = 7 * torch.randn(shape) * torch.logspace(0, -spread, shape[1])[:, None]
    x = matrices.double() / torch.linalg.matrix_norm(matrices.double(), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    seen = inverse_roots(matrices @ matrices.mT, 5) @ matrices
    torch.testing.assert_close(seen.double(), x, atol=1e-3, rtol=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_is_pytorchs_for_matrices_but_for_its_rounding_to_bfloat16(shape):
    theirs = torch.nn.Parameter(torch.randn(shape))
    ours = torch.nn.Parameter(theirs.detach().clone())
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon([ours], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        theirs.grad = torch.randn(shape)
        ours.grad = theirs.grad.clone()
        reference.step()
        optimizer.step()
    step = 0.01 * 0.2 * max(shape) ** 0.5  # of an orthogonal matrix
    torch.testing.assert_close(ours, theirs, atol=0.05 * step, rtol=0)


def test_kernels_are_matrices_to_muon_and_those_alike_in_one_product_stay_apart():
    shapes = [(6, 4), (6, 2, 2), (6, 4), (4, 6), (2, 2)]
    together = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    together.append(torch.nn.Parameter(torch.randn(5, 3, 2, 2).to(memory_format=torch.channels_last)))
    together.append(torch.nn.Parameter(torch.randn(9, 2, 2, 2).to(memory_format=torch.channels_last)))
    alone = [torch.nn.Parameter(weight.detach().flatten(1)) for weight in together]
    optimizers = [Muon(together, lr=0.01), *(Muon([weight], lr=0.01) for weight in alone)]
    for _ in range(3):
        for weight, matrix in zip(together, alone, strict=True):
            weight.grad = torch.randn(weight.shape)
            matrix.grad = weight.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    for weight, matrix in zip(together, alone, strict=True):
        torch.testing.assert_close(weight.flatten(1), matrix)


@pytest.mark.parametrize(
    ("shape", "blocks"), [((12, 40), 2), ((40, 12), 2), ((8, 2, 9), 2), ((7, 40), 1), ((4, 40), 1)]
)
def test_blocks_of_rows_are_matrices_of_their_own(shape, blocks):
    whole = torch.nn.Parameter(torch.randn(shape))
    gradient = torch.randn(shape)
    axis = 0 if shape != (40, 12) else 1
    parts = [torch.nn.Parameter(part.clone()) for part in whole.detach().chunk(blocks, axis)]
    whole.grad = gradient
    for part, own in zip(parts, gradient.chunk(blocks, axis), strict=True):
        part.grad = own.clone()
    Muon([whole], lr=0.01, rows=6).step()
    Muon(parts, lr=0.01, rows=1024).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts], axis))


def test_muon_is_adamw_for_vectors_and_leaves_gradients_in_place():
    theirs, ours, weight = (torch.nn.Parameter(torch.ones(n)) for n in (4, 4, (3, 3)))
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    optimizer = Muon([weight, ours], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        theirs.grad, weight.grad = torch.randn(4), torch.randn(3, 3)
        ours.grad, before = theirs.grad.clone(), weight.grad
        reference.step()
        optimizer.step()
        assert weight.grad is before
    torch.testing.assert_close(ours, theirs)
