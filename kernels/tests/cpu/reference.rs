//! The operators in plain f64, as their papers write them.

use std::collections::BTreeMap;

/// Tensors by name, in row-major order.
pub type Tensors = BTreeMap<&'static str, Vec<f64>>;

/// An operator, its attributes, and the shape of `x`.
#[derive(Clone, Debug)]
pub struct Operator {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub eps: f64,
    /// Axes along a row, for operators on rows.
    pub inner: usize,
    /// Groups of `group_norm`; `k` of `partial_rms_norm`.
    pub count: usize,
    /// `cast` of `rms_norm`; `sum` of the operators with a residual.
    pub word: &'static str,
    /// `None`: cumulative.
    pub momentum: Option<f64>,
    /// Batches before this one, where there is no momentum.
    pub batches: i64,
    /// Rounds to the type of the data.
    pub round: fn(f64) -> f64,
}

impl Operator {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn width(&self) -> usize {
        self.shape[self.shape.len() - self.inner..].iter().product()
    }

    fn is_channel_family(&self) -> bool {
        matches!(self.name, "batch_norm" | "batch_norm_inference" | "group_norm" | "instance_norm")
    }

    pub fn params(&self) -> usize {
        if self.is_channel_family() { self.shape[1] } else { self.width() }
    }

    fn spatial(&self) -> usize {
        self.shape[2..].iter().product()
    }

    /// Which statistic and which parameter an element has.
    fn place(&self, i: usize) -> (usize, usize) {
        if !self.is_channel_family() {
            return (i / self.width(), i % self.width());
        }
        let (c, s) = (self.shape[1], self.spatial());
        let (sample, channel) = (i / (c * s), i / s % c);
        match self.name {
            "group_norm" => (sample * self.count + channel / (c / self.count), channel),
            "instance_norm" => (sample * c + channel, channel),
            _ => (channel, channel),
        }
    }

    fn sets(&self) -> Vec<Vec<usize>> {
        let mut sets: Vec<Vec<usize>> = Vec::new();
        for i in 0..self.len() {
            let set = self.place(i).0;
            sets.resize(sets.len().max(set + 1), Vec::new());
            sets[set].push(i);
        }
        sets
    }

    fn weight(&self, input: &Tensors, i: usize) -> f64 {
        let offset = if self.word == "gemma" { 1.0 } else { 0.0 };
        input.get("weight").map_or(1.0, |weight| weight[self.place(i).1] + offset)
    }

    fn h(&self, input: &Tensors) -> Vec<f64> {
        let Some(residual) = input.get("residual") else { return input["x"].clone() };
        let sum = input["x"].iter().zip(residual).map(|(x, r)| x + r);
        if self.word == "rounded" { sum.map(self.round).collect() } else { sum.collect() }
    }

    /// Mean and reciprocal deviation of a set of elements.
    fn statistics(&self, input: &Tensors, x: &[f64], set: usize, members: &[usize]) -> (f64, f64) {
        let n = members.len() as f64;
        let squares = |members: &[usize]| members.iter().map(|&i| x[i] * x[i]).sum::<f64>();
        match self.name {
            "rms_norm" | "add_rms_norm" => (0.0, 1.0 / (squares(members) / n + self.eps).sqrt()),
            "partial_rms_norm" => (0.0, 1.0 / (squares(&members[..self.count]) / self.count as f64 + self.eps).sqrt()),
            "crms_norm" => {
                let sum: f64 = members.iter().map(|&i| x[i]).sum();
                (0.0, 1.0 / ((squares(members) + sum * sum) / (n + 1.0) + self.eps).sqrt())
            }
            "l2_normalize" => (0.0, 1.0 / squares(members).sqrt().max(self.eps)),
            "batch_norm_inference" => (input["running_mean"][set], 1.0 / (input["running_var"][set] + self.eps).sqrt()),
            _ => {
                let (mean, variance) = moments(x, members);
                (mean, 1.0 / (variance + self.eps).sqrt())
            }
        }
    }

    pub fn forward(&self, input: &Tensors) -> Tensors {
        let x = self.h(input);
        let mut y = vec![0.0; x.len()];
        for (set, members) in self.sets().iter().enumerate() {
            let (mean, rstd) = self.statistics(input, &x, set, members);
            for &i in members {
                let mut x_hat = (x[i] - mean) * rstd;
                if self.word == "llama" {
                    x_hat = (self.round)(x_hat);
                }
                y[i] = x_hat * self.weight(input, i) + input.get("bias").map_or(0.0, |bias| bias[self.place(i).1]);
            }
        }
        let mut output = Tensors::from([("y", y)]);
        if let Some(residual) = input.get("residual") {
            output.insert("residual_out", input["x"].iter().zip(residual).map(|(x, r)| x + r).collect());
        }
        if matches!(self.name, "batch_norm" | "instance_norm") && input.contains_key("running_mean") {
            self.running(input, &x, &mut output);
        }
        output
    }

    fn running(&self, input: &Tensors, x: &[f64], output: &mut Tensors) {
        let channels = self.shape[1];
        let (mut means, mut variances) = (vec![0.0; channels], vec![0.0; channels]);
        let sets = self.sets();
        let share = channels as f64 / sets.len() as f64;
        for members in &sets {
            let channel = self.place(members[0]).1;
            let n = members.len() as f64;
            let (mean, variance) = moments(x, members);
            means[channel] += mean * share;
            variances[channel] += variance * n / (n - 1.0) * share;
        }
        let factor = self.momentum.unwrap_or(1.0 / (self.batches + 1) as f64);
        let mix = |old: &[f64], new: Vec<f64>| {
            let mix =
                |(old, new): (&f64, f64)| if sets.is_empty() { *old } else { (1.0 - factor) * old + factor * new };
            old.iter().zip(new).map(mix).collect()
        };
        output.insert("new_running_mean", mix(&input["running_mean"], means));
        output.insert("new_running_var", mix(&input["running_var"], variances));
    }

    pub fn backward(&self, input: &Tensors) -> Tensors {
        let (x, dy) = (self.h(input), &input["dy"]);
        let mut dx = vec![0.0; x.len()];
        let (mut dweight, mut dbias) = (vec![0.0; self.params()], vec![0.0; self.params()]);
        for (set, members) in self.sets().iter().enumerate() {
            let (mean, rstd) = self.statistics(input, &x, set, members);
            let n = members.len() as f64;
            let x_hat = |i: usize| (x[i] - mean) * rstd;
            let g = |i: usize| dy[i] * self.weight(input, i);
            let g_sum: f64 = members.iter().map(|&i| g(i)).sum();
            let projection: f64 = members.iter().map(|&i| g(i) * x_hat(i)).sum();
            let s: f64 = members.iter().map(|&i| x_hat(i)).sum();
            for (place, &i) in members.iter().enumerate() {
                let inner = match self.name {
                    "batch_norm_inference" => 0.0,
                    "rms_norm" | "add_rms_norm" => x_hat(i) * projection / n,
                    "partial_rms_norm" if place < self.count => x_hat(i) * projection / self.count as f64,
                    "partial_rms_norm" => 0.0,
                    "crms_norm" => (x_hat(i) + s) * projection / (n + 1.0),
                    "l2_normalize" if 1.0 / rstd > self.eps => x_hat(i) * projection,
                    "l2_normalize" => 0.0,
                    _ => (g_sum + x_hat(i) * projection) / n,
                };
                dx[i] = (g(i) - inner) * rstd;
                let param = self.place(i).1;
                let stored = if self.word == "llama" { (self.round)(x_hat(i)) } else { x_hat(i) };
                dweight[param] += dy[i] * stored;
                dbias[param] += dy[i];
            }
        }
        let mut output = Tensors::new();
        if let Some(more) = input.get("dresidual_out") {
            dx.iter_mut().zip(more).for_each(|(dx, more)| *dx += more);
            output.insert("dresidual", dx.clone());
        }
        output.insert("dx", dx);
        if input.contains_key("weight") {
            output.insert("dweight", dweight);
        }
        if input.contains_key("bias") {
            output.insert("dbias", dbias);
        }
        output
    }
}

fn moments(x: &[f64], members: &[usize]) -> (f64, f64) {
    let n = members.len() as f64;
    let mean = members.iter().map(|&i| x[i]).sum::<f64>() / n;
    (mean, members.iter().map(|&i| (x[i] - mean) * (x[i] - mean)).sum::<f64>() / n)
}
