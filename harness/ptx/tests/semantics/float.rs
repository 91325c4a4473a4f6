//! Rounded arithmetic, comparisons, and what only looks at bits.

use super::{
    check,
    exact::{BF16, F16, F32, Format, Quotient, Root, Sum, round},
    halves, mixed,
};

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// a * b + c by its definition.
fn fma(f: Format, a: u64, b: u64, c: u64, mode: &str) -> u64 {
    let (x, y, z) = (f.value(a), f.value(b), f.value(c));
    let negative = (a ^ b) & f.sign_bit() != 0;
    let product_infinite = f.is_infinite(a) || f.is_infinite(b);
    let any_nan = [a, b, c].iter().any(|v| f.is_nan(*v));
    if any_nan || (product_infinite && (x == 0.0 || y == 0.0)) {
        return f.nan();
    }
    let infinity = |negative: bool| f.infinity() | if negative { f.sign_bit() } else { 0 };
    match (product_infinite, f.is_infinite(c)) {
        (true, true) if negative != (c & f.sign_bit() != 0) => return f.nan(),
        (true, _) => return infinity(negative),
        (false, true) => return c,
        _ => {}
    }
    let exact = Sum(x, y, z, 0.0);
    if super::exact::Exact::compare(&exact, 0.0).is_ne() {
        return round(f, &exact, mode);
    }
    // A zero: of one sign if both parts have it, else -0 only when rounding down.
    let (p, q) = (negative, c & f.sign_bit() != 0);
    if (p == q && p) || (p != q && mode == "rm") { f.sign_bit() } else { 0 }
}

fn rows(n: usize, f: Format) -> Vec<Vec<u64>> {
    let mut rows = mixed(n, f.bits, &f.special(), if f == F32 { 30_000 } else { 20_000 });
    // Neighbours in size, so that sums cancel and ties are met.
    let near: Vec<Vec<u64>> = rows
        .iter()
        .rev()
        .take(10_000)
        .map(|r| {
            r.iter()
                .enumerate()
                .map(|(i, v)| if i == 0 { *v } else { r[0] ^ (v & (f.sign_bit() | 0x0fff >> ((23 - f.fraction) / 2))) })
                .collect()
        })
        .collect();
    rows.extend(near);
    rows
}

fn minus(f: Format, v: u64) -> u64 {
    v ^ f.sign_bit()
}

#[test]
fn sums_products_and_fused_products_are_rounded_correctly() {
    for f in [F32, F16, BF16] {
        let (w, pairs, triples) = (f.bits, rows(2, f), rows(3, f));
        let one = (f.infinity() >> f.fraction >> 1) << f.fraction;
        let modes = if f == F32 { &MODES[..] } else { &MODES[..1] };
        for mode in modes {
            let name = format!("{mode}.{}", f.name);
            check(&format!("add.{name} $d, $a, $b;"), &[w; 3], &pairs, |r| fma(f, r[0], one, r[1], mode));
            check(&format!("sub.{name} $d, $a, $b;"), &[w; 3], &pairs, |r| {
                // A NaN has no sign to speak of.
                fma(f, r[0], one, minus(f, r[1]), mode)
            });
            check(&format!("mul.{name} $d, $a, $b;"), &[w; 3], &pairs, |r| {
                let product_sign = (r[0] ^ r[1]) & f.sign_bit();
                fma(f, r[0], r[1], product_sign, mode)
            });
            check(&format!("fma.{name} $d, $a, $b, $c;"), &[w; 4], &triples, |r| fma(f, r[0], r[1], r[2], mode));
        }
    }
}

#[test]
fn packed_halves_are_two_halves() {
    for (f, name) in [(F16, "f16x2"), (BF16, "bf16x2")] {
        let rows: Vec<Vec<u64>> =
            rows(4, f).iter().rev().take(20_000).map(|r| vec![r[0] | r[1] << 16, r[2] | r[3] << 16]).collect();
        let one = (f.infinity() >> f.fraction >> 1) << f.fraction;
        check(&format!("add.rn.{name} $d, $a, $b;"), &[32; 3], &rows, |r| {
            let half = |shift: u32| fma(f, r[0] >> shift & 0xffff, one, r[1] >> shift & 0xffff, "rn") << shift;
            half(0) | half(16)
        });
        check(&format!("fma.rn.{name} $d, $a, $b, $a;"), &[32; 3], &rows, |r| {
            let half = |shift: u32| {
                let at = |v: u64| v >> shift & 0xffff;
                fma(f, at(r[0]), at(r[1]), at(r[0]), "rn") << shift
            };
            half(0) | half(16)
        });
    }
}

#[test]
fn f32_with_flushed_subnormals_and_saturation() {
    let f = F32;
    let one = 0x3f80_0000;
    check("add.ftz.f32 $d, $a, $b;", &[32; 3], &rows(2, f), |r| {
        f.flush(fma(f, f.flush(r[0]), one, f.flush(r[1]), "rn"))
    });
    check("fma.rn.ftz.f32 $d, $a, $b, $c;", &[32; 4], &rows(3, f), |r| {
        f.flush(fma(f, f.flush(r[0]), f.flush(r[1]), f.flush(r[2]), "rn"))
    });
    check("mul.sat.f32 $d, $a, $b;", &[32; 3], &rows(2, f), |r| {
        let product = fma(f, r[0], r[1], (r[0] ^ r[1]) & f.sign_bit(), "rn");
        // NaN and what is not positive become +0.
        if f.is_nan(product) || product & f.sign_bit() != 0 { 0 } else { product.min(one) }
    });
}

#[test]
fn quotients_and_roots_are_rounded_correctly() {
    let f = F32;
    let quotient = |a: u64, b: u64, mode: &str| {
        let sign = (a ^ b) & f.sign_bit();
        let (x, y) = (f.value(a), f.value(b));
        let (ai, bi) = (f.is_infinite(a), f.is_infinite(b));
        match () {
            _ if f.is_nan(a) || f.is_nan(b) || (ai && bi) || (x == 0.0 && y == 0.0) => f.nan(),
            _ if ai || y == 0.0 => f.infinity() | sign,
            _ if bi || x == 0.0 => sign,
            _ => round(f, &Quotient(x, y), mode),
        }
    };
    let pairs = mixed(2, 32, &f.special(), 30_000);
    let singles = mixed(1, 32, &f.special(), 60_000);
    for mode in MODES {
        check(&format!("div.{mode}.f32 $d, $a, $b;"), &[32; 3], &pairs, |r| quotient(r[0], r[1], mode));
        check(&format!("rcp.{mode}.f32 $d, $a;"), &[32; 2], &singles, |r| quotient(0x3f80_0000, r[0], mode));
        check(&format!("sqrt.{mode}.f32 $d, $a;"), &[32; 2], &singles, |r| match r[0] {
            a if f.value(a) == 0.0 && !f.is_nan(a) => a,
            a if f.is_nan(a) || a & f.sign_bit() != 0 => f.nan(),
            a if f.is_infinite(a) => a,
            a => round(f, &Root(f.value(a)), mode),
        });
    }
}

#[test]
fn f64_arithmetic_is_the_processors() {
    let special = [
        0,
        1,
        0x3ff0_0000_0000_0000,
        0x3ff0_0000_0000_0001,
        0x7fef_ffff_ffff_ffff,
        0x7ff0_0000_0000_0000,
        0xbff8_0000_0000_0000,
    ];
    let rows = mixed(2, 64, &special, 20_000);
    let bits = |v: f64| if v.is_nan() { 0x7ff8_0000_0000_0000 } else { v.to_bits() };
    let f = f64::from_bits;
    check("add.f64 $d, $a, $b;", &[64; 3], &rows, |r| bits(f(r[0]) + f(r[1])));
    check("mul.f64 $d, $a, $b;", &[64; 3], &rows, |r| bits(f(r[0]) * f(r[1])));
    check("div.rn.f64 $d, $a, $b;", &[64; 3], &rows, |r| bits(f(r[0]) / f(r[1])));
    check("fma.rn.f64 $d, $a, $b, $a;", &[64; 3], &rows, |r| bits(f(r[0]).mul_add(f(r[1]), f(r[0]))));
}

#[test]
fn signs_and_extremes() {
    for f in [F16, BF16] {
        check(&format!("neg.{} $d, $a;", f.name), &[16; 2], &halves(), |r| minus(f, r[0]));
        check(&format!("abs.{} $d, $a;", f.name), &[16; 2], &halves(), |r| r[0] & !f.sign_bit());
    }
    for f in [F32, F16, BF16] {
        let rows = mixed(2, f.bits, &f.special(), 20_000);
        // The order of the bits, as sign and magnitude, is the order of the numbers, -0 before +0.
        let order = |v: u64| if v & f.sign_bit() != 0 { -((v & !f.sign_bit()) as i64) - 1 } else { v as i64 };
        for (name, pick) in [("min", true), ("max", false)] {
            let extreme = |a: u64, b: u64| if (order(a) <= order(b)) == pick { a } else { b };
            check(&format!("{name}.{} $d, $a, $b;", f.name), &[f.bits; 3], &rows, |r| {
                match (f.is_nan(r[0]), f.is_nan(r[1])) {
                    (true, true) => f.nan(),
                    (true, false) => r[1],
                    (false, true) => r[0],
                    _ => extreme(r[0], r[1]),
                }
            });
            check(&format!("{name}.NaN.{} $d, $a, $b;", f.name), &[f.bits; 3], &rows, |r| {
                if f.is_nan(r[0]) || f.is_nan(r[1]) { f.nan() } else { extreme(r[0], r[1]) }
            });
        }
    }
    let f = F32;
    let rows = mixed(2, 32, &f.special(), 1000);
    check("copysign.f32 $d, $a, $b;", &[32; 3], &rows, |r| r[0] & f.sign_bit() | r[1] & !f.sign_bit());
}

#[test]
fn comparisons_know_nans() {
    for f in [F32, F16] {
        let rows = mixed(2, f.bits, &f.special(), 5_000);
        type Test = (&'static str, fn(f64, f64) -> bool, bool);
        let tests: [Test; 14] = [
            ("eq", |a, b| a == b, false),
            ("ne", |a, b| a != b, false),
            ("lt", |a, b| a < b, false),
            ("le", |a, b| a <= b, false),
            ("gt", |a, b| a > b, false),
            ("ge", |a, b| a >= b, false),
            ("equ", |a, b| a == b, true),
            ("neu", |a, b| a != b, true),
            ("ltu", |a, b| a < b, true),
            ("leu", |a, b| a <= b, true),
            ("gtu", |a, b| a > b, true),
            ("geu", |a, b| a >= b, true),
            ("num", |_, _| true, false),
            ("nan", |_, _| false, true),
        ];
        for (name, test, nan) in tests {
            let want = |r: &[u64]| {
                let unordered = f.is_nan(r[0]) || f.is_nan(r[1]);
                u64::from(if unordered { nan } else { test(f.value(r[0]), f.value(r[1])) })
            };
            let code = format!("setp.{name}.{} %p0, $a, $b; selp.b32 $d, 1, 0, %p0;", f.name);
            check(&code, &[f.bits, f.bits, 32], &rows, want);
            let code = format!(
                "setp.{name}.and.{} %p0|%p1, $a, $b, !%p2; selp.b32 $d, 1, 0, %p0; @%p1 add.u32 $d, $d, 2;",
                f.name
            );
            check(&code, &[f.bits, f.bits, 32], &rows, |r| if want(r) == 1 { 1 } else { 2 });
        }
    }
    check("set.gt.f32.f32 $d, $a, $b;", &[32; 3], &[vec![0x4000_0000, 0x3f80_0000], vec![0, 0]], |r| {
        if r[0] > r[1] { 0x3f80_0000 } else { 0 }
    });
    check("set.gt.u32.f32 $d, $a, $b;", &[32; 3], &[vec![0x4000_0000, 0x3f80_0000], vec![0, 0]], |r| {
        if r[0] > r[1] { 0xffff_ffff } else { 0 }
    });
}
