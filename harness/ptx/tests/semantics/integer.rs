//! Integers and bits, as the manual defines them.

use super::{check, mixed};

const SPECIAL: [u64; 9] = [0, 1, 2, 31, 32, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

fn rows(n: usize, bits: u32) -> Vec<Vec<u64>> {
    let special: Vec<u64> = match bits {
        64 => SPECIAL.iter().flat_map(|v| [*v, *v << 32 | *v]).collect(),
        16 => vec![0, 1, 15, 16, 0x7fff, 0x8000, 0xffff],
        _ => SPECIAL.to_vec(),
    };
    mixed(n, bits, &special, 10_000)
}

#[test]
fn arithmetic() {
    for bits in [16, 32, 64] {
        let m = u64::MAX >> (64 - bits);
        let s = move |v: u64| ((v << (64 - bits)) as i64 >> (64 - bits)) as i128;
        let (pairs, triples) = (rows(2, bits), rows(3, bits));
        let u = |name: &str| format!("{name}.u{bits} $d, $a, $b;");
        let i = |name: &str| format!("{name}.s{bits} $d, $a, $b;");
        let w = [bits; 3];
        let wrap = move |v: i128| v as u64 & m;
        check(&u("add"), &w, &pairs, |r| wrap(r[0] as i128 + r[1] as i128));
        check(&i("sub"), &w, &pairs, |r| wrap(s(r[0]) - s(r[1])));
        check(&u("mul.lo"), &w, &pairs, |r| (r[0] as u128 * r[1] as u128) as u64 & m);
        check(&u("mul.hi"), &w, &pairs, |r| ((r[0] as u128 * r[1] as u128) >> bits) as u64 & m);
        check(&i("mul.hi"), &w, &pairs, |r| wrap((s(r[0]) * s(r[1])) >> bits));
        check(&format!("mad.lo.s{bits} $d, $a, $b, $c;"), &[bits; 4], &triples, |r| {
            wrap(s(r[0]).wrapping_mul(s(r[1])).wrapping_add(s(r[2])))
        });
        check(&format!("mad.hi.u{bits} $d, $a, $b, $c;"), &[bits; 4], &triples, |r| {
            (((r[0] as u128 * r[1] as u128) >> bits) + r[2] as u128) as u64 & m
        });
        check(&u("min"), &w, &pairs, |r| r[0].min(r[1]));
        check(&i("max"), &w, &pairs, |r| wrap(s(r[0]).max(s(r[1]))));
        let divisible: Vec<Vec<u64>> = pairs.iter().filter(|r| r[1] != 0).cloned().collect();
        check(&u("div"), &w, &divisible, |r| r[0] / r[1]);
        check(&u("rem"), &w, &divisible, |r| r[0] % r[1]);
        check(&i("div"), &w, &divisible, |r| wrap(s(r[0]) / s(r[1])));
        check(&i("rem"), &w, &divisible, |r| wrap(s(r[0]) % s(r[1])));
        check(&format!("abs.s{bits} $d, $a;"), &[bits; 2], &rows(1, bits), |r| wrap(s(r[0]).abs()));
        check(&format!("neg.s{bits} $d, $a;"), &[bits; 2], &rows(1, bits), |r| wrap(-s(r[0])));
        if bits < 64 {
            let wide = [bits, bits, 2 * bits];
            let mw = u64::MAX >> (64 - 2 * bits);
            check(&u("mul.wide"), &wide, &pairs, |r| r[0] * r[1]);
            check(&i("mul.wide"), &wide, &pairs, |r| (s(r[0]) * s(r[1])) as u64 & mw);
        }
    }
    let mixed_rows: Vec<Vec<u64>> = rows(2, 32).into_iter().map(|r| vec![r[0], r[1], r[0] << 31 ^ r[1]]).collect();
    check("mad.wide.s32 $d, $a, $b, $c;", &[32, 32, 64, 64], &mixed_rows, |r| {
        (i64::from(r[0] as i32) * i64::from(r[1] as i32)).wrapping_add(r[2] as i64) as u64
    });
}

#[test]
fn shifts_and_logic() {
    for bits in [16, 32, 64] {
        let m = u64::MAX >> (64 - bits);
        let amounts: Vec<Vec<u64>> = rows(1, bits)
            .iter()
            .flat_map(|r| [0, 1, 15, 16, 31, 32, 63, 64, 65, 255, u32::MAX.into()].map(|n| vec![r[0], n]))
            .collect();
        let w = [bits, 32, bits];
        let bit = move |v: u64, i: u64| if i < u64::from(bits) { v >> i & 1 } else { 0 };
        let build = move |f: &dyn Fn(u64) -> u64| (0..u64::from(bits)).fold(0, |d, i| d | f(i) << i);
        check(&format!("shl.b{bits} $d, $a, $b;"), &w, &amounts, |r| {
            build(&|i| if i >= r[1] { bit(r[0], i - r[1]) } else { 0 })
        });
        check(&format!("shr.u{bits} $d, $a, $b;"), &w, &amounts, |r| build(&|i| bit(r[0], i + r[1])));
        check(&format!("shr.s{bits} $d, $a, $b;"), &w, &amounts, |r| {
            let top = bit(r[0], u64::from(bits) - 1);
            build(&|i| if i + r[1] < u64::from(bits) { bit(r[0], i + r[1]) } else { top })
        });
        check(&format!("and.b{bits} $d, $a, $b;"), &[bits; 3], &rows(2, bits), |r| r[0] & r[1]);
        check(&format!("or.b{bits} $d, $a, $b;"), &[bits; 3], &rows(2, bits), |r| r[0] | r[1]);
        check(&format!("xor.b{bits} $d, $a, $b;"), &[bits; 3], &rows(2, bits), |r| r[0] ^ r[1]);
        check(&format!("not.b{bits} $d, $a;"), &[bits; 2], &rows(1, bits), |r| r[0] ^ m);
        check(&format!("cnot.b{bits} $d, $a;"), &[bits; 2], &rows(1, bits), |r| (r[0] == 0).into());
        if bits == 16 {
            continue;
        }
        let last = u64::from(bits) - 1;
        check(&format!("brev.b{bits} $d, $a;"), &[bits; 2], &rows(1, bits), |r| build(&|i| bit(r[0], last - i)));
        check(&format!("popc.b{bits} $d, $a;"), &[bits, 32], &rows(1, bits), |r| {
            (0..=last).map(|i| bit(r[0], i)).sum()
        });
        check(&format!("clz.b{bits} $d, $a;"), &[bits, 32], &rows(1, bits), |r| {
            (0..=last).rev().take_while(|i| bit(r[0], *i) == 0).count() as u64
        });
        check(&format!("bfind.u{bits} $d, $a;"), &[bits, 32], &rows(1, bits), |r| {
            (0..=last).rev().find(|i| bit(r[0], *i) == 1).unwrap_or(0xffff_ffff)
        });
        check(&format!("bfind.s{bits} $d, $a;"), &[bits, 32], &rows(1, bits), |r| {
            let sign = bit(r[0], last);
            (0..=last).rev().find(|i| bit(r[0], *i) != sign).unwrap_or(0xffff_ffff)
        });
        for (kind, signed) in [("u", false), ("s", true)] {
            let fields: Vec<Vec<u64>> = rows(1, bits)
                .iter()
                .flat_map(|r| {
                    [
                        (0, 0),
                        (0, 8),
                        (5, 7),
                        (last, 1),
                        (last, 9),
                        (3, 64),
                        (0, last + 1),
                        (200, 4),
                        (255, 255),
                        (16, 16),
                    ]
                    .map(|(p, n)| vec![r[0], p, n])
                })
                .collect();
            check(&format!("bfe.{kind}{bits} $d, $a, $b, $c;"), &[bits, 32, 32, bits], &fields, |r| {
                let (at, n) = (r[1] & 0xff, r[2] & 0xff);
                let fill = if !signed || n == 0 { 0 } else { bit(r[0], (at + n - 1).min(last)) };
                build(&|i| if i < n && at + i <= last { bit(r[0], at + i) } else { fill })
            });
        }
        for (at, n) in [(0, 8), (5, 7), (last, 4), (0, 64), (16, 0), (255, 3)] {
            check(&format!("bfi.b{bits} $d, $a, $b, {at}, {n};"), &[bits; 3], &rows(2, bits), |r| {
                build(&|i| if i >= at && i < at + n { bit(r[0], i - at) } else { bit(r[1], i) })
            });
        }
    }
}

#[test]
fn permutations_lookups_and_funnels() {
    let triples = rows(3, 32);
    check("prmt.b32 $d, $a, $b, $c;", &[32; 4], &triples, |r| {
        (0..4).fold(0, |d, i| {
            let pick = r[2] >> (4 * i) & 15;
            let source = if pick & 7 < 4 { r[0] } else { r[1] };
            let byte = source >> (8 * (pick & 3)) & 0xff;
            d | (if pick < 8 {
                byte
            } else if byte > 127 {
                0xff
            } else {
                0
            }) << (8 * i)
        })
    });
    for table in [0xe8, 0x96, 0x1b, 0x00, 0xff, 0xca] {
        check(&format!("lop3.b32 $d, $a, $b, $c, {table:#x};"), &[32; 4], &triples, |r| {
            (0..32).fold(0, |d, i| {
                let row = (r[0] >> i & 1) << 2 | (r[1] >> i & 1) << 1 | (r[2] >> i & 1);
                d | (table >> row & 1) << i
            })
        });
    }
    for (mode, wrap) in [("wrap", true), ("clamp", false)] {
        let amount = move |n: u64| if wrap { n % 32 } else { n.min(32) };
        check(&format!("shf.l.{mode}.b32 $d, $a, $b, $c;"), &[32; 4], &triples, |r| {
            let n = amount(r[2]);
            ((r[1] as u128) << n | (r[0] as u128) << n >> 32) as u64 & 0xffff_ffff
        });
        check(&format!("shf.r.{mode}.b32 $d, $a, $b, $c;"), &[32; 4], &triples, |r| {
            ((r[1] as u128) << 32 >> amount(r[2]) | (r[0] as u128) >> amount(r[2])) as u64 & 0xffff_ffff
        });
    }
    let pairs = rows(2, 32);
    check("mov.b64 $d, {$a, $b};", &[32, 32, 64], &pairs, |r| r[0] | r[1] << 32);
    check("mov.b64 {$d, _}, $a;", &[64, 32], &rows(1, 64), |r| r[0] & 0xffff_ffff);
    check("mov.b64 {_, $d}, $a;", &[64, 32], &rows(1, 64), |r| r[0] >> 32);
    check("mov.b32 $d, {$a, $b};", &[16, 16, 32], &rows(2, 16), |r| r[0] | r[1] << 16);
}

#[test]
fn comparisons_and_selection() {
    type Join = fn(bool, bool) -> bool;
    type Test = fn(i128, i128) -> bool;
    let joins: [(&str, Join); 3] = [("and", |x, y| x && y), ("or", |x, y| x || y), ("xor", |x, y| x != y)];
    let tests: [(&str, Test); 6] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a != b),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ];
    for bits in [16, 32, 64] {
        let s = move |v: u64| ((v << (64 - bits)) as i64 >> (64 - bits)) as i128;
        for (name, test) in tests {
            let select = "selp.b32 $d, 1, 0, %p0;";
            check(&format!("setp.{name}.s{bits} %p0, $a, $b; {select}"), &[bits, bits, 32], &rows(2, bits), |r| {
                test(s(r[0]), s(r[1])).into()
            });
            check(&format!("setp.{name}.u{bits} %p0, $a, $b; {select}"), &[bits, bits, 32], &rows(2, bits), |r| {
                test(r[0].into(), r[1].into()).into()
            });
            for (join, f) in joins {
                let code = format!("setp.ge.u{bits} %p1, $b, 3; setp.{name}.{join}.u{bits} %p0, $a, $b, %p1; {select}");
                check(&code, &[bits, bits, 32], &rows(2, bits), |r| {
                    f(test(r[0].into(), r[1].into()), r[1] >= 3).into()
                });
            }
        }
    }
}
