//! Parts of the package registry's Python wheels.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use zip::ZipArchive;

use crate::error::{At, Error};
use crate::machine::Machine;
use crate::part::Part;

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
    /// The folder in the wheel whose inside becomes the part's.
    pub folder: &'static str,
    /// The files to take, relative to `folder`; a name that ends in `/` takes all that is below.
    pub members: &'static [&'static str],
}

/// pip's names for the platforms that isonorm runs on. Under the name of 2014 pip takes older ones too.
pub const PLATFORMS_X86_64: [&str; 4] =
    ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"];
pub const PLATFORMS_AARCH64: [&str; 3] = ["manylinux_2_28_aarch64", "manylinux_2_25_aarch64", "manylinux_2_17_aarch64"];

/// The wheel that both parts take something of.
pub const RUNTIME_X86_64: Wheel = Wheel {
    requirement: "nvidia-cuda-runtime==13.0.96",
    sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    folder: "nvidia/cu13/",
    members: &[],
};
pub const RUNTIME_AARCH64: Wheel =
    Wheel { sha256: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55", ..RUNTIME_X86_64 };

impl Wheels {
    /// Downloads with the pip of `python` and unpacks into `scratch/NAME`, with all temporary files in `scratch`.
    pub fn fetch(&self, part: &'static Part, machine: &Machine, python: &str, scratch: &Path) -> Result<(), Error> {
        let downloads = scratch.join("wheels");
        self.download(part, machine, python, scratch, &downloads)?;
        eprintln!("isonorm: unpacking");
        for wheel in self.wheels {
            wheel.unpack(&wheel.find_in(&downloads)?, &scratch.join(part.name))?;
        }
        Ok(())
    }

    /// pip shows the progress and verifies the checksums.
    fn download(
        &self,
        part: &'static Part,
        machine: &Machine,
        python: &str,
        scratch: &Path,
        downloads: &Path,
    ) -> Result<(), Error> {
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
        Err(explain(part, &words))
    }
}

/// What pip's complaint means for the user.
fn explain(part: &'static Part, words: &str) -> Error {
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if says(&["DO NOT MATCH THE HASHES"]) {
        Error::BadChecksum
    } else if says(&["after connection broken by", "ConnectionError", "Read timed out", "ReadTimeoutError"]) {
        Error::NoNetwork { part }
    } else {
        Error::Pip { part }
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

    fn unpack(&self, file: &Path, folder: &Path) -> Result<(), Error> {
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
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).at("create", parent)?;
            let mut copy = File::create(&path).at("create", &path)?;
            io::copy(&mut member, &mut copy).at("write", &path)?;
        }
        Ok(())
    }
}
