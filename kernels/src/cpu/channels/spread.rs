//! Where a sample is taken.

/// `count` numbers below `bound`, rising: one at some place of each of as many equal parts. Equal steps might be in step with
/// a period of the data, and meet the same corner of every image.
#[inline(always)]
pub fn spread(count: usize, bound: usize) -> impl Iterator<Item = usize> {
    let part = bound / count.max(1);
    // Weyl's sequence of the golden ratio: no two parts near each other have nearly the same place.
    let within = move |i: usize| (u128::from((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) * part as u128) >> 64;
    (0..count).map(move |i| i * part + within(i) as usize)
}
