//! Layers that have no norm in them, or more than one.

use isonorm_oracles::claims::{By, Fire, Norm};
use tch::Tensor;

use super::network::{Network, Trouble, centred};
use super::norms::EPS;

/// Queries, keys and values side by side, to what the heads mix.
pub(super) fn attention(x: &Tensor, heads: i64) -> Result<Tensor, Trouble> {
    let [q, k, v] = parts(x, heads)?;
    let mixed = scores(&q, &k)?.f_softmax(-1, None)?.f_matmul(&v)?;
    merged(&mixed)
}

/// `α·x + β·softmax(scores)·x − γ·mean(x)` with `α = β = γ = 1`, as at the start of training.
pub(super) fn shaped_attention(network: &Network, name: &str, heads: i64, x: &Tensor) -> Result<Tensor, Trouble> {
    let width = x.size()[2];
    let read = network.linear_layer(name, (width as usize, 2 * width as usize), x)?;
    let [q, k] = parts(&read, heads)?;
    let [v] = parts(x, heads)?;
    let weight = |what: &str| network.parameter(format!("{name}.{what}"), &[heads as usize, 1, 1], 1.0, 0.0);
    let mixed = scores(&q, &k)?.f_softmax(-1, None)?.f_mul(&weight("beta")?)?.f_matmul(&v)?;
    let mean = v.f_mean_dim([-2i64].as_slice(), true, None)?.f_mul(&weight("gamma")?)?;
    merged(&v.f_mul(&weight("alpha")?)?.f_add(&mixed)?.f_sub(&mean)?)
}

/// What lies side by side in rows, each as `[batch, heads, tokens, entries]`.
fn parts<const N: usize>(x: &Tensor, heads: i64) -> Result<[Tensor; N], Trouble> {
    let (batch, tokens, width) = (x.size()[0], x.size()[1], x.size()[2]);
    let each = width / (N as i64 * heads);
    let split = x.f_view([batch, tokens, N as i64, heads, each])?.f_permute([2, 0, 3, 1, 4])?.f_unbind(0)?;
    split.try_into().map_err(|_| Trouble::Other(format!("{width} entries are not {N} parts of {heads} heads")))
}

fn scores(q: &Tensor, k: &Tensor) -> Result<Tensor, Trouble> {
    let each = q.size()[3] as f64;
    Ok(q.f_matmul(&k.f_transpose(-2, -1)?)?.f_mul_scalar(1.0 / each.sqrt())?)
}

/// Heads side by side again.
fn merged(x: &Tensor) -> Result<Tensor, Trouble> {
    let size = x.size();
    Ok(x.f_transpose(1, 2)?.f_reshape([size[0], size[2], size[1] * size[3]])?)
}

/// A GRU from state 0; the states of all steps. Each gate has a norm of what comes from the input and one of what comes from
/// the state.
pub(super) fn recurrent(
    network: &Network,
    name: &str,
    norm: Option<(Norm, By)>,
    x: &Tensor,
) -> Result<Tensor, Trouble> {
    let width = x.size()[2] as usize;
    let gates = |from: &str, x: &Tensor| -> Result<Vec<Tensor>, Trouble> {
        let all = network.linear_layer(&format!("{name}.{from}"), (width, 3 * width), x)?.f_chunk(3, -1)?;
        let normed = |(place, gate): (usize, &Tensor)| match norm {
            Some((norm, by)) => network.norm(&format!("{name}.{from}.{place}"), norm, by, true, gate),
            None => Ok(gate.shallow_clone()),
        };
        all.iter().enumerate().map(normed).collect()
    };
    let mut state = x.f_select(1, 0)?.f_zeros_like()?;
    let mut states = Vec::new();
    for input in x.f_unbind(1)? {
        let (from_input, from_state) = (gates("input", &input)?, gates("state", &state)?);
        let reset = from_input[0].f_add(&from_state[0])?.f_sigmoid()?;
        let update = from_input[1].f_add(&from_state[1])?.f_sigmoid()?;
        let fresh = from_input[2].f_add(&reset.f_mul(&from_state[2])?)?.f_tanh()?;
        state = fresh.f_add(&update.f_mul(&state.f_sub(&fresh)?)?)?;
        states.push(state.shallow_clone());
    }
    Ok(Tensor::f_stack(&states, 1)?)
}

/// What the potential of a neuron keeps from step to step, and where it fires.
const DECAY: f64 = 0.5;
const THRESHOLD: f64 = 0.6;

/// Neurons that fire, one step in time after the other: `u = decay·u + x`, a spike where the condition holds, and there `u = 0`.
pub(super) fn fire(network: &Network, name: &str, when: Fire, x: &Tensor) -> Result<Tensor, Trouble> {
    let width = x.size()[2] as usize;
    let affine = || network.norm_parameters(name, Norm::Affine, true, width)?.affine();
    let scale = || network.made(format!("{name}.scale"), || Ok(affine()?.0));
    let shift = || network.made(format!("{name}.shift"), || Ok(affine()?.1));
    // `u·scale + shift ≥ V` is `u ≥ (V - shift) / scale` where the scale is above 0.
    let threshold = || {
        network.made(format!("{name}.threshold"), || {
            let (scale, shift) = affine()?;
            Ok(shift.f_neg()?.f_add_scalar(THRESHOLD)?.f_div(&scale)?)
        })
    };
    let mut potential = x.f_select(0, 0)?.f_zeros_like()?;
    let mut spikes = Vec::new();
    for input in x.f_unbind(0)? {
        potential = potential.f_mul_scalar(DECAY)?.f_add(&input)?;
        let fires = match when {
            Fire::Plain => potential.f_ge(THRESHOLD / 10.0)?,
            Fire::Normalized => potential.f_mul(&scale()?)?.f_add(&shift()?)?.f_ge(THRESHOLD)?,
            Fire::Folded => potential.f_ge_tensor(&threshold()?)?,
        };
        // Without branches, whose cost would depend on how often neurons fire.
        let fires = fires.f_to_kind(x.kind())?;
        potential = potential.f_sub(&potential.f_mul(&fires)?)?;
        spikes.push(fires);
    }
    Ok(Tensor::f_stack(&spikes, 0)?)
}

/// Rows as images: `[batch, channels, height, width]`.
pub(super) fn as_images(x: &Tensor) -> Result<Tensor, Trouble> {
    let (batch, tokens, channels) = (x.size()[0], x.size()[1], x.size()[2]);
    let height =
        (1..=tokens).take_while(|side| side * side <= tokens).filter(|side| tokens % side == 0).last().unwrap_or(1);
    Ok(x.f_transpose(1, 2)?.f_reshape([batch, channels, height, tokens / height])?.f_contiguous()?)
}

/// A convolution of 3x3. Standardized: weights of an output have mean 0 and variance 1 over the number of inputs, times a gain.
pub(super) fn convolution(network: &Network, name: &str, standardized: bool, x: &Tensor) -> Result<Tensor, Trouble> {
    let channels = x.size()[1] as usize;
    let deviation = 1.0 / (9.0 * channels as f64).sqrt();
    let shape = [channels, channels, 3, 3];
    let mut weight = network.parameter(format!("{name}.weight"), &shape, 0.0, deviation)?;
    let bias = network.parameter(format!("{name}.bias"), &[channels], 0.05, 0.1)?;
    if standardized {
        let gain = network.parameter(format!("{name}.gain"), &[channels, 1], 1.0, 0.2)?;
        let flat = centred(&weight.f_flatten(1, 3)?, 1)?;
        let variance = flat.f_mul(&flat)?.f_mean_dim([1i64].as_slice(), true, None)?;
        let scale = variance.f_mul_scalar(9.0 * channels as f64)?.f_clamp_min(1e-4)?.f_rsqrt()?.f_mul(&gain)?;
        weight = flat.f_mul(&scale)?.f_view_as(&weight)?;
    }
    Ok(x.f_conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1)?)
}

/// BatchNorm of `[batch, channels, ...]`.
pub(super) fn batch_norm(
    network: &Network,
    name: &str,
    batch: bool,
    learned: bool,
    sparing: bool,
    x: &Tensor,
) -> Result<Tensor, Trouble> {
    let of = network.norm_parameters(name, Norm::Affine, true, x.size()[1] as usize)?;
    let (Some(weight), Some(bias), Some((mean, variance))) = (of.weight, of.bias, of.statistics) else {
        return Err(Trouble::Other(format!("{name} has no parameters")));
    };
    let (weight, bias) = if learned { (weight, bias) } else { (weight.detach(), bias.detach()) };
    let by_channel = |vector: &Tensor| vector.f_view([-1, 1, 1]);
    if network.is_exact() {
        // The definition: biased variance, of the batch or fixed.
        let (mean, variance) = if batch {
            let over = [0i64, 2, 3];
            let mean = x.f_mean_dim(over.as_slice(), true, None)?;
            let apart = x.f_sub(&mean)?;
            let variance = apart.f_mul(&apart)?.f_mean_dim(over.as_slice(), true, None)?;
            (mean, variance)
        } else {
            (by_channel(&mean)?, by_channel(&variance)?)
        };
        let normalized = x.f_sub(&mean)?.f_div(&variance.f_add_scalar(EPS)?.f_sqrt()?)?;
        return Ok(normalized.f_mul(&by_channel(&weight)?)?.f_add(&by_channel(&bias)?)?);
    }
    if sparing && !learned && !batch {
        let scale = variance.f_add_scalar(EPS)?.f_rsqrt()?.f_mul(&weight)?;
        let shift = bias.f_sub(&mean.f_mul(&scale)?)?;
        return Ok(by_channel(&shift)?.f_addcmul(x, &by_channel(&scale)?)?);
    }
    let statistics = if batch { (None, None) } else { (Some(&mean), Some(&variance)) };
    Ok(x.f_batch_norm(Some(&weight), Some(&bias), statistics.0, statistics.1, batch, 0.0, EPS, false)?)
}
