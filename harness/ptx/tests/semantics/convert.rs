//! cvt in all directions.

use super::{
    check,
    exact::{BF16, F16, F32, Format, Sum, round},
    halves, mixed,
};

/// f32 patterns: special ones, random ones, and those around the midpoints of narrower formats.
fn singles() -> Vec<Vec<u64>> {
    let mut rows = mixed(1, 32, &F32.special(), 60_000);
    for (i, f) in [F16, BF16].iter().enumerate() {
        for bits in (0..=f.infinity()).step_by(37 + i) {
            let middle = ((f.value(bits) + f.value(bits + 1)) / 2.0) as f32;
            let at = u64::from(middle.to_bits());
            rows.extend([at - 1, at, at + 1, at | 1 << 31].map(|v| vec![v]));
        }
    }
    rows
}

/// f32 to a narrower format.
fn narrow(f: Format, a: u64, mode: &str) -> u64 {
    match a {
        a if F32.is_nan(a) => f.nan(),
        a if F32.is_infinite(a) => f.infinity() | if a >> 31 == 1 { f.sign_bit() } else { 0 },
        a if a << 33 == 0 => {
            if a >> 31 == 1 {
                f.sign_bit()
            } else {
                0
            }
        }
        a => round(f, &Sum(F32.value(a), 1.0, 0.0, 0.0), mode),
    }
}

#[test]
fn f32_to_halves() {
    let rows = singles();
    for (f, modes) in [(F16, &["rn", "rz", "rm", "rp"][..]), (BF16, &["rn", "rz"])] {
        for mode in modes {
            check(&format!("cvt.{mode}.{}.f32 $d, $a;", f.name), &[32, 16], &rows, |r| narrow(f, r[0], mode));
        }
        check(&format!("cvt.rn.relu.{}.f32 $d, $a;", f.name), &[32, 16], &rows, |r| match narrow(f, r[0], "rn") {
            v if f.is_nan(v) => v,
            v if v & f.sign_bit() != 0 => 0,
            v => v,
        });
        let pairs: Vec<Vec<u64>> = rows.windows(2).step_by(3).map(|w| vec![w[0][0], w[1][0]]).collect();
        check(&format!("cvt.rn.{}x2.f32 $d, $a, $b;", f.name), &[32, 32, 32], &pairs, |r| {
            narrow(f, r[0], "rn") << 16 | narrow(f, r[1], "rn")
        });
    }
    let tf32 = Format { name: "tf32", bits: 19, fraction: 10 };
    check("cvt.rna.tf32.f32 $d, $a;", &[32, 32], &rows, |r| match r[0] {
        a if F32.is_nan(a) => F32.nan(),
        a if F32.is_infinite(a) || a << 33 == 0 => a,
        a => round(tf32, &Sum(F32.value(a), 1.0, 0.0, 0.0), "rna") << 13,
    });
}

#[test]
fn flushing_concerns_f32_alone() {
    let subnormal = |a: u64| a & 0x7fff_ffff < 0x80_0000;
    check("cvt.rn.ftz.f16.f32 $d, $a;", &[32, 16], &singles(), |r| {
        narrow(F16, if subnormal(r[0]) { r[0] & 1 << 31 } else { r[0] }, "rn")
    });
    // f16's subnormals are normal numbers of f32.
    check("cvt.ftz.f32.f16 $d, $a;", &[16, 32], &[vec![1], vec![0x8001], vec![0x3c00]], |r| {
        u64::from((F16.value(r[0]) as f32).to_bits())
    });
}

#[test]
fn halves_to_f32_exactly() {
    for f in [F16, BF16] {
        check(&format!("cvt.f32.{} $d, $a;", f.name), &[16, 32], &halves(), |r| match r[0] {
            a if f.is_nan(a) => F32.nan(),
            a if f.is_infinite(a) => F32.infinity() | (a >> 15) << 31,
            a => u64::from((f.value(a) as f32).to_bits()),
        });
    }
    check("cvt.f64.f32 $d, $a;", &[32, 64], &mixed(1, 32, &F32.special()[..28], 20_000), |r| {
        match f32::from_bits(r[0] as u32) {
            v if v.is_nan() => 0x7ff8_0000_0000_0000,
            v => f64::from(v).to_bits(),
        }
    });
    check("cvt.rn.f32.f64 $d, $a;", &[64, 32], &mixed(1, 64, &[0, 1, 1 << 63], 60_000), |r| {
        match f64::from_bits(r[0]) as f32 {
            v if v.is_nan() => F32.nan(),
            v => v.to_bits().into(),
        }
    });
}

/// A floating-point number as an integer, by shifting its significand.
fn to_integer(f: Format, a: u64, mode: &str, bits: u32, signed: bool) -> u64 {
    if f.is_nan(a) {
        return if bits == 64 { 1 << 63 } else { 0 };
    }
    let negative = a & f.sign_bit() != 0;
    let magnitude = a & !f.sign_bit();
    let (field, fraction) = ((magnitude >> f.fraction) as i32, magnitude & ((1 << f.fraction) - 1));
    let (significand, exponent) = if field == 0 { (fraction, 1) } else { (fraction | 1 << f.fraction, field) };
    // The value is significand * 2^shift.
    let shift = exponent - ((1 << (f.bits - f.fraction - 2)) - 1) - f.fraction as i32;
    let whole: i128 = if f.is_infinite(a) {
        1 << 120
    } else if shift >= 0 {
        if shift > 90 { 1 << 120 } else { i128::from(significand) << shift }
    } else if shift < -60 {
        let nonzero = significand != 0;
        i128::from(match mode {
            "rpi" => nonzero && !negative,
            "rmi" => nonzero && negative,
            _ => false,
        })
    } else {
        let (quotient, rest) = (i128::from(significand >> -shift), significand & ((1 << -shift) - 1));
        let half = 1u64 << (-shift - 1);
        let up = match mode {
            "rzi" => false,
            "rmi" => negative && rest > 0,
            "rpi" => !negative && rest > 0,
            _ => rest > half || (rest == half && quotient % 2 == 1),
        };
        quotient + i128::from(up)
    };
    let value = if negative { -whole } else { whole };
    let (least, most) =
        if signed { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    (value.clamp(least, most) as u64) & (u64::MAX >> (64 - bits))
}

#[test]
fn floats_to_integers() {
    let rows = singles();
    for mode in ["rni", "rzi", "rmi", "rpi"] {
        for (name, bits, signed) in
            [("s32", 32, true), ("u32", 32, false), ("s64", 64, true), ("u64", 64, false), ("s16", 16, true)]
        {
            check(&format!("cvt.{mode}.{name}.f32 $d, $a;"), &[32, bits], &rows, |r| {
                to_integer(F32, r[0], mode, bits, signed)
            });
            check(&format!("cvt.{mode}.{name}.f16 $d, $a;"), &[16, bits], &halves(), |r| {
                to_integer(F16, r[0], mode, bits, signed)
            });
        }
        // To an integral number of the same type.
        check(&format!("cvt.{mode}.f32.f32 $d, $a;"), &[32, 32], &mixed(1, 32, &F32.special()[..28], 20_000), |r| {
            let v = f32::from_bits(r[0] as u32);
            let whole = match mode {
                _ if v.is_nan() => return F32.nan(),
                _ if v.abs() >= 8_388_608.0 => v,
                "rzi" => v as i32 as f32,
                "rmi" => {
                    let t = v as i32 as f32;
                    if t > v { t - 1.0 } else { t }
                }
                "rpi" => {
                    let t = v as i32 as f32;
                    if t < v { t + 1.0 } else { t }
                }
                _ => (v.abs() + 8_388_608.0) - 8_388_608.0,
            };
            u64::from(whole.copysign(v).to_bits())
        });
    }
}

#[test]
fn integers_to_floats() {
    let special =
        [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0100_0001, 0x0100_0003, 1 << 63, u64::MAX, (1 << 53) + 1];
    let wide = mixed(1, 64, &special, 40_000);
    let narrow: Vec<Vec<u64>> = wide.iter().map(|r| vec![r[0] & 0xffff_ffff]).collect();
    let exact = |f: Format, v: i128, mode: &str| {
        let (high, low) = ((v >> 32) as f64 * 4_294_967_296.0, (v & 0xffff_ffff) as f64);
        if v == 0 { 0 } else { round(f, &Sum(high, 1.0, low, 0.0), mode) }
    };
    for mode in ["rn", "rz", "rm", "rp"] {
        check(&format!("cvt.{mode}.f32.s32 $d, $a;"), &[32, 32], &narrow, |r| {
            exact(F32, i128::from(r[0] as i32), mode)
        });
        check(&format!("cvt.{mode}.f32.u32 $d, $a;"), &[32, 32], &narrow, |r| {
            exact(F32, i128::from(r[0] as u32), mode)
        });
        check(&format!("cvt.{mode}.f32.s64 $d, $a;"), &[64, 32], &wide, |r| exact(F32, i128::from(r[0] as i64), mode));
        check(&format!("cvt.{mode}.f32.u64 $d, $a;"), &[64, 32], &wide, |r| exact(F32, i128::from(r[0]), mode));
    }
    check("cvt.rn.f16.s32 $d, $a;", &[32, 16], &narrow, |r| exact(F16, i128::from(r[0] as i32), "rn"));
    check("cvt.rn.f64.s64 $d, $a;", &[64, 64], &wide, |r| (r[0] as i64 as f64).to_bits());
    check("cvt.rn.f64.u32 $d, $a;", &[32, 64], &narrow, |r| f64::from(r[0] as u32).to_bits());
}

#[test]
fn integers_to_integers() {
    let rows = mixed(
        1,
        64,
        &[0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 1 << 63, u64::MAX],
        5000,
    );
    let low: Vec<Vec<u64>> = rows.iter().map(|r| vec![r[0] & 0xffff_ffff]).collect();
    check("cvt.s64.s32 $d, $a;", &[32, 64], &low, |r| r[0] as i32 as i64 as u64);
    check("cvt.u64.u32 $d, $a;", &[32, 64], &low, |r| r[0]);
    check("cvt.u32.u64 $d, $a;", &[64, 32], &rows, |r| r[0] & 0xffff_ffff);
    check("cvt.u16.u32 $d, $a;", &[32, 16], &low, |r| r[0] & 0xffff);
    check("cvt.s32.s8 $d, $a;", &[32, 32], &low, |r| r[0] as i8 as i32 as u32 as u64);
    check("cvt.u32.u8 $d, $a;", &[32, 32], &low, |r| r[0] & 0xff);
    check("cvt.sat.s8.s32 $d, $a;", &[32, 32], &low, |r| (r[0] as i32).clamp(-128, 127) as u32 as u64);
    check("cvt.sat.u8.s32 $d, $a;", &[32, 32], &low, |r| (r[0] as i32).clamp(0, 255) as u64);
    check("cvt.sat.u16.u64 $d, $a;", &[64, 16], &rows, |r| r[0].min(0xffff));
    check("cvt.sat.s32.s64 $d, $a;", &[64, 32], &rows, |r| {
        (r[0] as i64).clamp(i32::MIN.into(), i32::MAX.into()) as u32 as u64
    });
}
