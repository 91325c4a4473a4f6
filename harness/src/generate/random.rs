//! Random numbers that are the same on every machine and in every version: functions of a key and a counter.
//!
//! The function is the output mix of SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014),
//! applied to key + counter · golden ratio. Only integer arithmetic and IEEE 754 additions and products are used: no
//! library's distribution, no function of libm.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A sequence of random numbers, each to be had at once by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    key: u64,
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random { key: seed }
    }

    /// Another sequence, for a purpose of this number.
    pub fn child(self, purpose: u64) -> Self {
        Random { key: mix(self.key ^ mix(purpose.wrapping_add(GOLDEN))) }
    }

    /// Another sequence, for a purpose of this name.
    pub fn named(self, purpose: &str) -> Self {
        // FNV-1a.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        self.child(hash)
    }

    /// 64 random bits.
    pub fn at(self, place: u64) -> u64 {
        mix(self.key.wrapping_add(place.wrapping_mul(GOLDEN)))
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0.
    pub fn below(self, place: u64, n: usize) -> usize {
        below(self.at(place), n)
    }

    /// A multiple of 2^-53 in [0, 1).
    pub fn uniform(self, place: u64) -> f64 {
        uniform(self.at(place))
    }

    /// A bell-shaped number of mean 0 and variance 1, between ±2√3: the sum of four uniform ones. Takes two places.
    pub fn normal(self, place: u64) -> f64 {
        const SQRT_3: f64 = 1.732_050_807_568_877_2;
        let (a, b) = (self.at(place), self.at(place + 1));
        // The two halves of a number are independent of each other where it matters, in their leading bits.
        let sum = uniform(a) + uniform(a.rotate_left(32)) + uniform(b) + uniform(b.rotate_left(32));
        (sum - 2.0) * SQRT_3
    }
}

fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn below(bits: u64, n: usize) -> usize {
    ((u128::from(bits) * n as u128) >> 64) as usize
}

/// A sequence that is read from front to back.
#[derive(Clone, Debug)]
pub struct Draws {
    random: Random,
    next: u64,
}

impl Draws {
    /// From the start.
    pub fn new(random: Random) -> Self {
        Draws { random, next: 0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.next += 1;
        self.random.at(self.next)
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        below(self.bits(), n)
    }

    /// Whether an event of probability `numerator / denominator` occurs.
    pub fn chance(&mut self, numerator: usize, denominator: usize) -> bool {
        self.below(denominator) < numerator
    }

    /// One of a list.
    ///
    /// # Panics
    /// If the list is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// The place of one of a list of weights, in proportion to them.
    ///
    /// # Panics
    /// If the weights add up to 0.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        weights
            .iter()
            .position(|&weight| {
                let here = rest < weight;
                rest = rest.saturating_sub(weight);
                here
            })
            .expect("the weights do not add up to 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        // The published sequence of seed 0.
        let expected = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!([1, 2, 3].map(|place| Random::new(0).at(place)), expected);
    }

    #[test]
    fn purposes_differ() {
        let root = Random::new(7);
        let mut seen: Vec<u64> = (0..100).map(|purpose| root.child(purpose).at(0)).collect();
        seen.extend(["x", "y", "dy", "weight"].map(|name| root.named(name).at(0)));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 104);
    }

    #[test]
    fn draws_cover_their_range_evenly() {
        let mut draws = Draws::new(Random::new(1));
        let mut counts = [0; 6];
        (0..60_000).for_each(|_| counts[draws.below(6)] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        let mut counts = [0; 3];
        (0..60_000).for_each(|_| counts[draws.weighted(&[1, 0, 2])] += 1);
        assert!((19_000..21_000).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
        assert_eq!(draws.below(0), 0);
    }
}
