//! The RPC sockets: the one that may do everything, and one for monitoring.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::unistd::{Gid, Group};
use rpc::{Access, Limits, Server, ServerOptions};

use crate::cli::ServeArgs;

/// Listens on all sockets that the command line asks for. Clients are answered later.
///
/// # Errors
/// A group does not exist, or something stands in the way of a socket.
pub(super) fn bind(args: &ServeArgs, path: &Path) -> anyhow::Result<Vec<Server>> {
    if args.no_rpc_server {
        return Ok(Vec::new());
    }
    let limits = Limits {
        connections: usize::try_from(args.rpc_clients)?,
        request_time: Duration::from_secs(args.rpc_request_time.into()),
        ..Limits::default()
    };
    let mut wanted = vec![ServerOptions {
        mode: args.rpc_socket_mode,
        group: group("--rpc-socket-group", args.rpc_socket_group.as_deref())?,
        limits,
        ..ServerOptions::new(path)
    }];
    if let Some(readonly) = &args.rpc_socket_readonly {
        if readonly == path {
            bail!(
                "--rpc-socket-readonly: {} is the RPC socket that may do everything, give another path",
                path.display()
            );
        }
        wanted.push(ServerOptions {
            mode: args.rpc_socket_readonly_mode,
            group: group(
                "--rpc-socket-readonly-group",
                args.rpc_socket_readonly_group.as_deref(),
            )?,
            access: Access::ReadOnly,
            limits,
            ..ServerOptions::new(readonly)
        });
    }
    let servers = wanted.into_iter().map(|options| Ok(Server::bind(options)?));
    servers.collect()
}

/// The number of a group.
fn group(option: &str, name: Option<&str>) -> anyhow::Result<Option<u32>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let found = Group::from_name(name).with_context(|| format!("{option} {name}"))?;
    let number = || name.parse().ok().map(Gid::from_raw);
    let gid = found.map(|group| group.gid).or_else(number);
    let gid = gid.ok_or_else(|| anyhow!("{option}: there is no group {name}"))?;
    Ok(Some(gid.as_raw()))
}
