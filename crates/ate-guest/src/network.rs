//! The one network interface, and loopback. Set up once: a restored machine has the same address behind the same
//! gateway, so nothing has to be announced.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use ate_guest::protocol::Network;
use futures::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

pub(crate) fn configure(network: &Network) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        up(&handle, find(&handle, "lo").await?).await?;
        let link = find(&handle, "eth0").await?;
        handle.address().add(link, IpAddr::V4(network.address), network.prefix).replace().execute().await?;
        up(&handle, link).await?;
        let gateway = handle.neighbours().add(link, IpAddr::V4(network.gateway));
        // Permanent: a question nobody answers costs a second, and so would one asked right after a restore.
        gateway.link_layer_address(&network.gateway_mac).replace().execute().await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(network.gateway).build();
        handle.route().add(route).replace().execute().await?;
        Ok(())
    })
}

async fn find(handle: &Handle, name: &str) -> Result<u32> {
    let link = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let link = link.with_context(|| format!("no interface {name}"))?;
    Ok(link.with_context(|| format!("no interface {name}"))?.header.index)
}

async fn up(handle: &Handle, link: u32) -> Result<()> {
    Ok(handle.link().change(LinkUnspec::new_with_index(link).up().build()).execute().await?)
}
