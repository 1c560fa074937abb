//! `ProfileService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_db::Tx;
use weft_proto::identity::v1::profile_service_server::ProfileService;
use weft_proto::identity::v1::{GetProfileRequest, Profile, UpdateProfileRequest};

use super::Identity;
use crate::domain::profile::ProfileChange;
use crate::domain::role::Roles;
use crate::error::Error;
use crate::store::account::{ProfileRow, account_profile, account_set_profile};

/// The service behind `weft.identity.v1.ProfileService`.
pub struct ProfileApi(pub Arc<Identity>);

#[tonic::async_trait]
impl ProfileService for ProfileApi {
    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<Profile>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let plan = self.0.entitlements.of(&claims.prd, &claims.sub);
        let (row, plan) = tokio::join!(self.0.profile(claims), plan);
        let row = row?;
        Ok(Response::new(profile(claims, row, plan?.plan.clone())))
    }

    async fn update_profile(&self, request: Request<UpdateProfileRequest>) -> Result<Response<Profile>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let UpdateProfileRequest { display_name, locale, time_zone, avatar_url } = request.into_inner();
        let change = ProfileChange { display_name, locale, time_zone, avatar_url }.checked()?;
        // First: who hears that billing is away has changed nothing.
        let plan = self.0.entitlements.of(&claims.prd, &claims.sub).await?;
        let row = self.0.change_profile(claims, &change).await?;
        Ok(Response::new(profile(claims, row, plan.plan.clone())))
    }
}

impl Identity {
    async fn change_profile(&self, claims: &Claims, change: &ProfileChange) -> Result<ProfileRow, Error> {
        self.db
            .write("change profile", async |tx: Tx| {
                account_set_profile(&tx, &claims.prd, &claims.sub, change).await?;
                let row = account_profile(&tx, &claims.prd, &claims.sid, &claims.sub).await?;
                row.filter(|row| row.ended_at.is_none()).ok_or(Error::InvalidAccessToken)
            })
            .await
    }
}

fn profile(claims: &Claims, row: ProfileRow, tier: String) -> Profile {
    Profile {
        id: claims.sub.clone(),
        email: row.email,
        tier,
        product: claims.prd.clone(),
        created_at: row.created_at,
        display_name: row.display_name.unwrap_or_default(),
        locale: row.locale.unwrap_or_default(),
        time_zone: row.time_zone.unwrap_or_default(),
        avatar_url: row.avatar_url.unwrap_or_default(),
        roles: Roles::stored(&row.roles).names(),
    }
}
