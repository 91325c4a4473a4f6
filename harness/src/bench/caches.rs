//! The sizes of the caches, and which of them a working set fits in.

use std::fs;
use std::path::Path;

/// Data caches of one core, as the system lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Level and bytes, the smallest first.
    levels: Vec<(u32, u64)>,
}

impl Caches {
    /// Of this machine; empty if the system does not say.
    pub fn here() -> Caches {
        Caches::read(Path::new("/sys/devices/system/cpu/cpu0/cache"))
    }

    fn read(folder: &Path) -> Caches {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut levels: Vec<(u32, u64)> = entries
            .filter_map(|entry| {
                let field = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
                if field("type")?.trim() == "Instruction" {
                    return None;
                }
                let kib: u64 = field("size")?.trim().strip_suffix('K')?.parse().ok()?;
                Some((field("level")?.trim().parse().ok()?, kib << 10))
            })
            .collect();
        levels.sort_unstable();
        Caches { levels }
    }

    /// The level that holds a working set divided among threads, each on a core of its own: `L1` … or `memory`. The last
    /// level is shared, the others are each core's own. `None` if no cache is known.
    pub fn level(&self, working_set: u64, threads: u32) -> Option<String> {
        let (last, _) = self.levels.last()?;
        let holds = |&&(level, bytes): &&(u32, u64)| {
            let cores = if level == *last { 1 } else { u64::from(threads.max(1)) };
            working_set <= bytes * cores
        };
        let found = self.levels.iter().find(holds);
        Some(found.map_or_else(|| "memory".to_owned(), |(level, _)| format!("L{level}")))
    }

    /// Bytes of the last level; where no cache is known, those of a large one.
    pub fn largest(&self) -> u64 {
        self.levels.last().map_or(64 << 20, |(_, bytes)| *bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_private_caches_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let caches =
            [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")];
        for (index, (level, kind, size)) in caches.iter().enumerate() {
            let cache = folder.path().join(format!("index{index}"));
            fs::create_dir(&cache).expect("created");
            for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                fs::write(cache.join(name), format!("{text}\n")).expect("written");
            }
        }
        let caches = Caches::read(folder.path());
        assert_eq!(caches.largest(), 32 << 20);
        let level = |kib: u64, threads| caches.level(kib << 10, threads).expect("known");
        assert_eq!([level(48, 1), level(49, 1), level(96, 2), level(2048, 2)], ["L1", "L2", "L1", "L2"]);
        assert_eq!([level(2049, 2), level(32 << 10, 2), level(33 << 10, 2)], ["L3", "L3", "memory"]);
        assert_eq!(Caches::read(&folder.path().join("none")).level(1, 1), None);
    }
}
