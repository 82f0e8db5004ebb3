//! The shards of a deployment: their creation, and the check that an address leads to the right one.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Address, StoreError, migrate, sql};
use crate::domain::{ShardId, ShardMap};

/// The advisory lock under which the shards of a deployment are created. It is in the database of the first shard.
const LOCK: &str = "begin; set local idle_in_transaction_session_timeout = 0; select pg_advisory_xact_lock(7243391002)";

/// Why a deployment does not have the expected shards.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another number of shards was created.
    #[error("the deployment has {0} shards; their number never changes")]
    OtherCount(u16),
    /// A schema has data already.
    #[error("a schema has data already; the number of shards is chosen when a deployment is created, in empty schemas")]
    InUse,
    /// The address leads to another shard, or to another deployment.
    #[error("the schema is {found}, not shard {expected} of this deployment")]
    Mismatch {
        /// The expected shard.
        expected: u16,
        /// What the schema is.
        found: String,
    },
}

/// Which shard a schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    number: u16,
    count: u16,
    deployment: Uuid,
}

/// The shards of a deployment, with the name of the schema of each.
#[derive(Debug, Clone)]
pub struct Shards {
    /// The map of the deployment.
    pub map: ShardMap,
    first_schema: String,
    deployment: Option<Uuid>,
}

impl Shards {
    /// Reads the shards of the deployment at the address of its first shard.
    pub async fn load(first: &Address) -> Result<Self, ShardError> {
        with_connection(first, Self::load_from).await
    }

    async fn load_from(client: &Client) -> Result<Self, ShardError> {
        let (_, first_schema) = usage(client).await?;
        let Some(identity) = identity(client).await? else {
            return Ok(Self { map: ShardMap::ONE, first_schema, deployment: None });
        };
        if identity.number != ShardId::FIRST.number() {
            return Err(identity.mismatch(ShardId::FIRST));
        }
        let map = ShardMap::new(identity.count).ok_or(StoreError::Corrupt("count of shards"))?;
        Ok(Self { map, first_schema, deployment: Some(identity.deployment) })
    }

    /// Creates the shards of a new deployment, or checks that it has this number of shards. `address` returns the address of a shard's
    /// database. What a failed attempt has created is used by the next one.
    pub async fn create(
        map: ShardMap,
        first: &Address,
        address: impl Fn(ShardId) -> Address,
    ) -> Result<Self, ShardError> {
        with_connection(first, async |client| Self::create_locked(map, client, address).await).await
    }

    async fn create_locked(
        map: ShardMap,
        first: &Client,
        address: impl Fn(ShardId) -> Address,
    ) -> Result<Self, ShardError> {
        first.batch_execute(LOCK).await.map_err(StoreError::from)?;
        let existing = Self::load_from(first).await?;
        if existing.map == map {
            return Ok(existing);
        }
        if existing.deployment.is_some() {
            return Err(ShardError::OtherCount(existing.map.count()));
        }
        if usage(first).await?.0 {
            return Err(ShardError::InUse);
        }
        // An interrupted attempt has left the id in the last shards that it created. They are adopted.
        let mut shards = Self { map, deployment: Some(Uuid::now_v7()), ..existing };
        for shard in map.shards().skip(1) {
            let adopted = shards.create_shard(shard, &address(shard)).await?;
            shards.deployment = Some(adopted);
        }
        let identity = shards.identity_of(ShardId::FIRST)?;
        put(first, identity).await?;
        first.batch_execute("commit").await.map_err(StoreError::from)?;
        Ok(shards)
    }

    /// Creates the schema of a shard, and its tables. Returns the deployment to which it belongs.
    async fn create_shard(&self, shard: ShardId, database: &Address) -> Result<Uuid, ShardError> {
        let create = format!("create schema if not exists {}", quoted(&self.schema(shard)));
        with_connection(database, async |client| Ok(client.batch_execute(&create).await.map_err(StoreError::from)?))
            .await?;
        let address = self.address(shard, database);
        migrate(&address).await?;
        let expected = self.identity_of(shard)?;
        let record = async |client: &Client| match identity(client).await? {
            // A shard of another deployment, which uses it.
            Some(_) if usage(client).await?.0 => Err(ShardError::InUse),
            Some(found) if (found.number, found.count) == (expected.number, expected.count) => Ok(found.deployment),
            Some(found) => Err(found.mismatch(shard)),
            None => put(client, expected).await.map(|()| expected.deployment),
        };
        with_connection(&address, record).await
    }

    /// Returns the address of a shard, given that of its database: it selects the shard's schema.
    pub fn address(&self, shard: ShardId, database: &Address) -> Address {
        match shard {
            ShardId::FIRST => database.clone(),
            _ => database.with_schema(&quoted(&self.schema(shard))),
        }
    }

    /// Checks that an address leads to a shard of this deployment.
    pub async fn check(&self, shard: ShardId, address: &Address) -> Result<(), ShardError> {
        if self.map == ShardMap::ONE {
            return Ok(());
        }
        match with_connection(address, identity).await? {
            Some(found) if found == self.identity_of(shard)? => Ok(()),
            Some(found) => Err(found.mismatch(shard)),
            None => Err(ShardError::Mismatch { expected: shard.number(), found: "no shard".to_owned() }),
        }
    }

    fn schema(&self, shard: ShardId) -> String {
        match shard {
            ShardId::FIRST => self.first_schema.clone(),
            _ => format!("{}_shard_{}", self.first_schema, shard.number()),
        }
    }

    fn identity_of(&self, shard: ShardId) -> Result<Identity, ShardError> {
        let deployment = self.deployment.ok_or(StoreError::Corrupt("deployment"))?;
        Ok(Identity { number: shard.number(), count: self.map.count(), deployment })
    }
}

impl Identity {
    fn mismatch(self, expected: ShardId) -> ShardError {
        let Self { number, count, deployment } = self;
        let found = format!("shard {number} of {count} of the deployment {deployment}");
        ShardError::Mismatch { expected: expected.number(), found }
    }
}

/// Runs `run` on a connection of its own.
async fn with_connection<T>(
    address: &Address,
    run: impl AsyncFnOnce(&Client) -> Result<T, ShardError>,
) -> Result<T, ShardError> {
    let (client, driver) = address.connect().await?;
    let driver = tokio::spawn(driver);
    let result = run(&client).await;
    drop(client);
    // The session ends with its client; an error of the connection has surfaced in `result`.
    let _ = driver.await;
    result
}

/// Returns whether the schema has data, and its name.
async fn usage(client: &Client) -> Result<(bool, String), ShardError> {
    let row = client.query_typed_one(sql::SHARD_IS_USED, &[]).await.map_err(StoreError::from)?;
    let (is_used, schema) = (row.try_get("is_used"), row.try_get("schema"));
    Ok((is_used.map_err(StoreError::from)?, schema.map_err(StoreError::from)?))
}

async fn identity(client: &Client) -> Result<Option<Identity>, ShardError> {
    let rows = match client.query_typed(sql::SHARD_IDENTITY, &[]).await {
        // Not a schema of Ridewire.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
        rows => rows.map_err(StoreError::from)?,
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let number = |column| {
        let number = row.try_get::<_, i64>(column).map_err(StoreError::from)?;
        u16::try_from(number).map_err(|_| StoreError::Corrupt("shard"))
    };
    let deployment = row.try_get("deployment").map_err(StoreError::from)?;
    Ok(Some(Identity { number: number("number")?, count: number("count")?, deployment }))
}

async fn put(client: &Client, identity: Identity) -> Result<(), ShardError> {
    let Identity { number, count, deployment } = identity;
    let params: super::pool::Params<'_> = &[&i64::from(number), &i64::from(count), &deployment];
    client.execute(sql::SHARD_PUT, params).await.map_err(StoreError::from)?;
    Ok(())
}

/// Quotes an identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
