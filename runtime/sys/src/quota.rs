// SPDX-License-Identifier: Apache-2.0
//! Project quotas of a filesystem (xfs, ext4): every file has the number of a project, new ones that of their
//! directory, and the filesystem counts and limits what all files of a project use.

use crate::{Error, Result};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, opcode};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct FsXattr {
    flags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
const GET_ATTR: Opcode = opcode::read::<FsXattr>(b'X', 31);
const SET_ATTR: Opcode = opcode::write::<FsXattr>(b'X', 32);
/// `FS_XFLAG_PROJINHERIT`: new files and directories get the project of this one.
const INHERIT: u32 = 0x200;

/// `struct fs_disk_quota` of `linux/dqblk_xfs.h`. Sizes are in blocks of 512 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    blocks_hard: u64,
    blocks_soft: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    blocks: u64,
    inodes: u64,
    times: [i32; 2],
    warnings: [u16; 2],
    times_high: [u8; 4],
    realtime: [u64; 3],
    realtime_time: i32,
    realtime_warnings: u16,
    pad: [u8; 10],
}

/// `struct fs_quota_statv`, as far as it is read, with room for all of it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct QuotaState {
    version: i8,
    pad: u8,
    flags: u16,
    counted: u32,
    rest: [u64; 32],
}

const _: () = assert!(size_of::<FsXattr>() == 28 && size_of::<DiskQuota>() == 112);

/// Commands of `quotactl_fd(2)`, and the type of quotas.
const GET_QUOTA: u32 = 0x5803;
const SET_LIMITS: u32 = 0x5804;
const GET_STATE: u32 = 0x5808;
const GET_NEXT_QUOTA: u32 = 0x5809;
const PROJECT_QUOTAS: u32 = 2;
/// `FS_DQ_BSOFT` and `FS_DQ_BHARD`: the fields that are set.
const BLOCK_LIMITS: u16 = 1 << 2 | 1 << 3;
/// `FS_QUOTA_PDQ_ENFD`: project quotas are enforced.
const ENFORCED: u16 = 1 << 5;
/// Bytes of a block.
const BLOCK: u64 = 512;

/// The use of all files of a project, and their limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Number of files, directories and others.
    pub used_inodes: u64,
    /// Most bytes on disk; 0 means unlimited.
    pub limit_bytes: u64,
}

impl From<DiskQuota> for ProjectUsage {
    fn from(of: DiskQuota) -> Self {
        Self {
            used_bytes: of.blocks.saturating_mul(BLOCK),
            used_inodes: of.inodes,
            limit_bytes: of.blocks_hard.saturating_mul(BLOCK),
        }
    }
}

/// The project of a file or directory; 0 is none. `ioctl_fs(2)`, Linux 4.5.
pub fn project_of(file: BorrowedFd<'_>) -> Result<u32> {
    attributes(file).map(|of| of.project)
}

/// Puts an empty directory, and all that will be made in it, into a project.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut of = attributes(directory)?;
    of.project = project;
    of.flags |= INHERIT;
    // SAFETY: the operation reads one `struct fsxattr`, whose layout is that of FsXattr.
    let set = unsafe { Setter::<SET_ATTR, FsXattr>::new(of) };
    // SAFETY: the operation is what its opcode says, see above.
    let set = unsafe { rustix::ioctl::ioctl(directory, set) };
    set.map_err(Error::of(|| format!("ioctl(FS_IOC_FSSETXATTR, project {project})")))
}

fn attributes(file: BorrowedFd<'_>) -> Result<FsXattr> {
    // SAFETY: the operation writes one `struct fsxattr`, whose layout is that of FsXattr.
    let get = unsafe { Getter::<GET_ATTR, FsXattr>::new() };
    // SAFETY: the operation is what its opcode says, see above.
    let got = unsafe { rustix::ioctl::ioctl(file, get) };
    got.map_err(Error::of(|| "ioctl(FS_IOC_FSGETXATTR)"))
}

/// Whether the filesystem enforces limits of projects; `ENOSYS` and others if it has no quotas at all.
pub fn enforces_projects(file_system: BorrowedFd<'_>) -> Result<bool> {
    let mut state = QuotaState { version: 1, ..QuotaState::default() };
    let call = || "quotactl_fd(Q_XGETQSTATV, PRJQUOTA)".to_owned();
    quotactl(file_system, GET_STATE, 0, (&raw mut state).cast(), call)?;
    Ok(state.flags & ENFORCED != 0)
}

/// The use of a project; none if the filesystem does not know it.
pub fn project_usage(file_system: BorrowedFd<'_>, project: u32) -> Result<ProjectUsage> {
    let mut quota = DiskQuota::default();
    let call = || format!("quotactl_fd(Q_XGETQUOTA, project {project})");
    match quotactl(file_system, GET_QUOTA, project, (&raw mut quota).cast(), call) {
        Ok(()) => Ok(quota.into()),
        Err(err) if err.is_not_found() => Ok(ProjectUsage::default()),
        Err(err) => Err(err),
    }
}

/// The project with the lowest number, from `from` on, that the filesystem keeps account of. Linux 4.6.
pub fn next_project(file_system: BorrowedFd<'_>, from: u32) -> Result<Option<(u32, ProjectUsage)>> {
    let mut quota = DiskQuota::default();
    let call = || format!("quotactl_fd(Q_XGETNEXTQUOTA, project {from})");
    match quotactl(file_system, GET_NEXT_QUOTA, from, (&raw mut quota).cast(), call) {
        Ok(()) => Ok(Some((quota.id, quota.into()))),
        Err(err) if err.is_not_found() || err.errno() == Errno::SRCH => Ok(None),
        Err(err) => Err(err),
    }
}

/// Limits what the files of a project may use on disk; 0 removes the limit.
pub fn limit_project(file_system: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota = DiskQuota {
        version: 1,
        // FS_PROJ_QUOTA.
        flags: 2,
        fields: BLOCK_LIMITS,
        id: project,
        blocks_hard: blocks,
        blocks_soft: blocks,
        ..DiskQuota::default()
    };
    let call = || format!("quotactl_fd(Q_XSETQLIM, project {project}, {bytes} bytes)");
    quotactl(file_system, SET_LIMITS, project, (&raw mut quota).cast(), call)
}

/// `quotactl_fd(2)`, Linux 5.14. `data` is what the command reads or writes.
fn quotactl(
    file_system: BorrowedFd<'_>,
    command: u32,
    id: u32,
    data: *mut libc::c_void,
    call: impl FnOnce() -> String,
) -> Result<()> {
    /// The same number on every architecture.
    const QUOTACTL_FD: libc::c_long = 443;
    let command = command << 8 | PROJECT_QUOTAS;
    // SAFETY: every caller passes a value of its own that is as large as what the command reads or writes: the layouts
    // are those of the kernel's headers.
    let ret = unsafe { libc::syscall(QUOTACTL_FD, file_system.as_raw_fd(), command, id, data) };
    if ret == 0 { Ok(()) } else { Err(Error::last(call())) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_filesystem_without_quotas_says_so() {
        let proc = File::open("/proc").unwrap();
        assert!(enforces_projects(proc.as_fd()).is_err());
        assert!(limit_project(proc.as_fd(), 7, 1 << 20).is_err());
        assert!(project_of(proc.as_fd()).is_err());
    }
}
