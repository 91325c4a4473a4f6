//! The parts of libtorch for the CPU, out of the package registry's Python wheels.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use zip::ZipArchive;

use crate::error::{At, Error};
use crate::machine::Machine;

/// What to download for one platform.
pub struct Wheels {
    /// pip's names for the platform, newest C library first.
    pub platforms: &'static [&'static str],
    pub wheels: &'static [Wheel],
    /// The most disk that downloading and unpacking take at one time.
    pub bytes: u64,
}

pub struct Wheel {
    /// `name==version`
    pub requirement: &'static str,
    pub sha256: &'static str,
    /// The folder in the wheel whose inside becomes libtorch's.
    pub folder: &'static str,
    /// The files to take, relative to `folder`; a name that ends in `/` takes all that is below.
    pub members: &'static [&'static str],
}

pub fn for_platform(platform: &str) -> Option<&'static Wheels> {
    match platform {
        "linux-x86_64-gnu" => Some(&X86_64),
        "linux-aarch64-gnu" => Some(&AARCH64),
        _ => None,
    }
}

// The registry's wheels are CUDA builds. Without libtorch_cuda.so beside it libtorch_cpu.so works alone, but for the
// two CUDA libraries that it names as dependencies.
static X86_64: Wheels = Wheels {
    platforms: &["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64"],
    wheels: &[
        Wheel {
            requirement: "torch==2.11.0",
            sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
            folder: "torch/",
            members: &["include/", "lib/libc10.so", "lib/libtorch_cpu.so", "lib/libgomp.so.1"],
        },
        Wheel {
            requirement: "nvidia-cuda-runtime==13.0.96",
            sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            folder: "nvidia/cu13/",
            members: &["lib/libcudart.so.13"],
        },
        Wheel {
            requirement: "nvidia-cuda-cupti==13.0.85",
            sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
            folder: "nvidia/cu13/",
            members: &["lib/libcupti.so.13"],
        },
    ],
    bytes: 1_600_000_000,
};

static AARCH64: Wheels = Wheels {
    platforms: &["manylinux_2_28_aarch64", "manylinux_2_25_aarch64", "manylinux_2_17_aarch64"],
    wheels: &[
        Wheel {
            requirement: "torch==2.11.0",
            sha256: "d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6",
            folder: "torch/",
            members: &[
                "include/",
                "lib/libc10.so",
                "lib/libtorch_cpu.so",
                "lib/libgomp.so.1",
                "lib/libarm_compute.so",
                "lib/libarm_compute_graph.so",
                "lib/libnvpl_blas_core.so.0",
                "lib/libnvpl_blas_lp64_gomp.so.0",
                "lib/libnvpl_lapack_core.so.0",
                "lib/libnvpl_lapack_lp64_gomp.so.0",
            ],
        },
        Wheel {
            requirement: "nvidia-cuda-runtime==13.0.96",
            sha256: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
            folder: "nvidia/cu13/",
            members: &["lib/libcudart.so.13"],
        },
        Wheel {
            requirement: "nvidia-cuda-cupti==13.0.85",
            sha256: "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
            folder: "nvidia/cu13/",
            members: &["lib/libcupti.so.13"],
        },
    ],
    bytes: 1_400_000_000,
};

impl Wheels {
    /// Downloads with the pip of `python` and unpacks into `libtorch`, with all temporary files in `scratch`.
    pub fn fetch(&self, machine: &Machine, python: &str, scratch: &Path, libtorch: &Path) -> Result<(), Error> {
        let downloads = scratch.join("wheels");
        self.download(machine, python, scratch, &downloads)?;
        eprintln!("isonorm: unpacking");
        for wheel in self.wheels {
            wheel.unpack(&wheel.find_in(&downloads)?, libtorch)?;
        }
        // The wheel's own libtorch.so is a stub that asks for the CUDA part too.
        let stub = libtorch.join("lib/libtorch.so");
        fs::write(&stub, "INPUT(libtorch_cpu.so)\n").at("write", stub)
    }

    /// pip shows the progress and verifies the checksums.
    fn download(&self, machine: &Machine, python: &str, scratch: &Path, downloads: &Path) -> Result<(), Error> {
        let list = scratch.join("requirements.txt");
        let pinned = |wheel: &Wheel| format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256);
        fs::write(&list, self.wheels.iter().map(pinned).collect::<String>()).at("write", &list)?;

        let mut pip = machine.command(python);
        pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"])
            .args(["--disable-pip-version-check", "--retries=2", "--timeout=30"])
            // Any wheel will do, but one must be chosen for the checksum: whatever Python it is that runs here.
            .args(["--implementation=cp", "--python-version=3.11", "--abi=cp311"]);
        for platform in self.platforms {
            pip.arg(format!("--platform={platform}"));
        }
        let standard_error = io::stderr().as_fd().try_clone_to_owned().at("use", "the standard error")?;
        let mut pip = pip
            .arg("--dest")
            .arg(downloads)
            .arg("--requirement")
            .arg(&list)
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            // So that the space that was asked for is the space that is used.
            .env("TMPDIR", scratch)
            .stdout(Stdio::from(standard_error))
            .stderr(Stdio::piped())
            .spawn()
            .at("start", python)?;

        let mut words = String::new();
        if let Some(complaints) = pip.stderr.take() {
            for line in BufReader::new(complaints).lines() {
                let line = line.at("read from", python)?;
                eprintln!("{line}");
                words.push_str(&line);
            }
        }
        if pip.wait().at("wait for", python)?.success() {
            return Ok(());
        }
        Err(explain(&words))
    }
}

/// What pip's complaint means for the user.
fn explain(words: &str) -> Error {
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if says(&["DO NOT MATCH THE HASHES"]) {
        Error::BadChecksum
    } else if says(&["after connection broken by", "ConnectionError", "Read timed out", "ReadTimeoutError"]) {
        Error::NoNetwork
    } else {
        Error::Pip
    }
}

impl Wheel {
    fn find_in(&self, folder: &Path) -> Result<PathBuf, Error> {
        let (name, version) = self.requirement.split_once("==").unwrap_or((self.requirement, ""));
        let start = format!("{}-{version}-", name.replace('-', "_"));
        for entry in fs::read_dir(folder).at("list", folder)? {
            let path = entry.at("list", folder)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&start) {
                return Ok(path);
            }
        }
        Err(Error::Answer {
            program: "pip download",
            reason: format!("there is no {} in {}", self.requirement, folder.display()),
        })
    }

    fn unpack(&self, file: &Path, libtorch: &Path) -> Result<(), Error> {
        let unzip = |source| Error::Unzip { path: file.to_owned(), source };
        let archive = File::open(file).at("open", file)?;
        let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(unzip)?;
        for index in 0..archive.len() {
            let mut member = archive.by_index(index).map_err(unzip)?;
            let name = member.name().map_err(unzip)?.into_owned();
            let Some(name) = name.strip_prefix(self.folder) else {
                continue;
            };
            let wanted = |part: &&str| *part == name || part.ends_with('/') && name.starts_with(*part);
            if !member.is_file() || !self.members.iter().any(wanted) {
                continue;
            }
            let path = libtorch.join(name);
            let parent = path.parent().unwrap_or(libtorch);
            fs::create_dir_all(parent).at("create", parent)?;
            let mut copy = File::create(&path).at("create", &path)?;
            io::copy(&mut member, &mut copy).at("write", &path)?;
        }
        Ok(())
    }
}
