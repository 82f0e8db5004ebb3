//! The list of rides: a user's own rides, and all rides for support and the service.

use serde_json::{Value, json};

use crate::support::{Database, Server, User};

fn names(page: &Value) -> Vec<&str> {
    page["rides"].as_array().unwrap().iter().map(|ride| ride["rideId"].as_str().unwrap()).collect()
}

async fn list(user: &User, query: &str) -> Value {
    user.get(&format!("rides?{query}")).await.expect(200).json()
}

async fn create_rides(server: &Server) {
    let service = server.service();
    for number in 1..=5 {
        let driver = if number % 2 == 0 { "driver_1" } else { "driver_2" };
        service.put_ride(&format!("ride_{number}"), "rider_1", Some(driver)).await.expect(201);
    }
    service.put_ride("other", "rider_2", None).await.expect(201);
    service.set_status("ride_3", "arrived").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn support_and_service_list_all_rides_of_all_users() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    create_rides(&server).await;
    let last = server.rider("rider_1").send("ride_2", "Hello").await;
    server.driver("driver_1").send("ride_4", "Here").await;
    for staff in [server.support(), server.service()] {
        let all = list(&staff, "").await;
        assert_eq!(names(&all), ["other", "ride_5", "ride_4", "ride_3", "ride_2", "ride_1"]);
        assert_eq!((&all["hasMore"], &all["next"]), (&json!(false), &Value::Null));
        assert_eq!((&all["rides"][4]["lastMessage"], &all["rides"][4]["unreadCount"]), (&last, &json!(1)));
        assert_eq!((&all["rides"][0]["lastMessage"], &all["rides"][0]["unreadCount"]), (&Value::Null, &json!(0)));
        assert_eq!(names(&list(&staff, "userId=driver_1").await), ["ride_4", "ride_2"]);
        assert_eq!(names(&list(&staff, "userId=rider_1&limit=2").await), ["ride_5", "ride_4"]);
        assert_eq!(names(&list(&staff, "userId=rider_1&status=arrived").await), ["ride_3"]);
        assert_eq!(names(&list(&staff, "userId=nobody").await), Vec::<&str>::new());
        assert_eq!(names(&list(&staff, "status=arrived").await), ["ride_3"]);
        assert_eq!(names(&list(&staff, "status=accepted").await), ["ride_5", "ride_4", "ride_2", "ride_1"]);
        assert_eq!(names(&list(&staff, "before=ride_4&limit=2").await), ["ride_3", "ride_2"]);
        for query in ["", "status=accepted&", "userId=rider_1&"] {
            let (mut before, mut paged) = (String::new(), Vec::new());
            loop {
                let page = list(&staff, &format!("{query}limit=2{before}")).await;
                paged.extend(names(&page).iter().map(|&name| name.to_owned()));
                let Some(next) = page["next"].as_str() else { break };
                before = format!("&before={next}");
            }
            assert_eq!(paged, names(&list(&staff, query.trim_end_matches('&')).await), "{query}");
        }
        for wrong in ["userId=a%20b", "userId=", "status=finished", "limit=201", "before=a%20b", "driverId=driver_1"] {
            staff.get(&format!("rides?{wrong}")).await.problem(400, "invalid_request");
        }
    }
    // Support has a read watermark; the service has none.
    server.support().mark(&last, "read").await.expect(200);
    assert_eq!(list(&server.support(), "userId=rider_1").await["rides"][3]["unreadCount"], 0);
    assert_eq!(list(&server.service(), "userId=rider_1").await["rides"][3]["unreadCount"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn riders_and_drivers_list_only_their_own_rides() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    create_rides(&server).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    assert_eq!(names(&list(&rider, "").await).len(), 5);
    assert_eq!(names(&list(&driver, "").await), ["ride_4", "ride_2"]);
    assert_eq!(names(&list(&driver, "userId=driver_1").await), ["ride_4", "ride_2"]);
    for user in [&rider, &driver] {
        user.get("rides?userId=rider_2").await.problem(403, "forbidden");
        user.get("rides?userId=a%20b").await.problem(400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_page_continues_even_if_the_last_ride_has_changed_or_is_deleted() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    create_rides(&server).await;
    let service = server.service();
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let of_driver = list(&driver, "limit=1").await;
    assert_eq!(names(&of_driver), ["ride_4"]);
    let of_rider = list(&rider, "limit=2").await;
    let of_staff = list(&service, "limit=3").await;
    assert_eq!((names(&of_rider), names(&of_staff)), (vec!["ride_5", "ride_4"], vec!["other", "ride_5", "ride_4"]));
    let next = |page: &Value| page["next"].as_str().unwrap().to_owned();

    // The ride is assigned to another driver.
    service.put_ride("ride_4", "rider_1", Some("driver_3")).await.expect(200);
    assert_eq!(names(&list(&driver, &format!("before={}", next(&of_driver))).await), ["ride_2"]);
    assert_eq!(names(&list(&driver, "before=ride_4").await), ["ride_2"]);
    // Retention has deleted the ride.
    let client = database.client().await;
    for table in ["rides", "participants", "messages", "receipts"] {
        client.execute(&format!("delete from {table} where ride_id = 'ride_4'"), &[]).await.unwrap();
    }
    client.execute("delete from topics where name = 'ride/ride_4'", &[]).await.unwrap();
    let rest = ["ride_3", "ride_2", "ride_1"];
    assert_eq!(names(&list(&rider, &format!("before={}", next(&of_rider))).await), rest);
    assert_eq!(names(&list(&service, &format!("before={}", next(&of_staff))).await), rest);
    // The position of a deleted ride's id is unknown: an error, not an empty page.
    for user in [&rider, &service] {
        let rejected = user.get("rides?before=ride_4").await.problem(400, "invalid_request");
        assert_eq!(rejected["errors"][0]["pointer"], "before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reassigned_driver_sees_the_messages_of_both_intervals() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut visible = Vec::new();
    for text in ["one", "two", "three"] {
        visible.push(rider.send("ride_1", text).await);
    }
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let other = rider.send("ride_1", "for the second").await;
    server.driver("driver_2").send("ride_1", "of the second").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    // The driver's last visible message is from the first interval.
    assert_eq!(list(&driver, "").await["rides"][0]["lastMessage"]["id"], visible[2]["id"]);
    assert_eq!(list(&driver, "").await["rides"][0]["unreadCount"], 3);
    visible.push(rider.send("ride_1", "four").await);
    visible.push(driver.send("ride_1", "five").await);

    let ids = |messages: &[Value]| messages.iter().map(|message| message["id"].clone()).collect::<Vec<_>>();
    let seqs: Vec<_> = visible.iter().map(|message| message["seq"].as_i64().unwrap()).collect();
    let polled = driver.poll("ride_1", "after=0&wait=0&types=message:new").await;
    let polled: Vec<_> = polled["events"].as_array().unwrap().iter().map(|event| event["data"].clone()).collect();
    assert_eq!(ids(&polled), ids(&visible));
    let history = async |query: &str| {
        let page = driver.history("ride_1", query).await;
        (ids(page["messages"].as_array().unwrap()), page["hasMore"] == true)
    };
    assert_eq!(history("").await, (ids(&visible), false));
    assert_eq!(history("?after=0").await, (ids(&visible), false));
    assert_eq!(history("?limit=3").await, (ids(&visible[2..]), true));
    assert_eq!(history(&format!("?limit=2&before={}", seqs[3])).await, (ids(&visible[1..3]), true));
    assert_eq!(history(&format!("?limit=2&after={}", seqs[1])).await, (ids(&visible[2..4]), true));
    assert_eq!(history(&format!("?after={}", seqs[2])).await, (ids(&visible[3..]), false));
    let page = list(&driver, "").await;
    assert_eq!(
        (&page["rides"][0]["lastMessage"]["id"], &page["rides"][0]["unreadCount"]),
        (&visible[4]["id"], &json!(4))
    );
    let unread = driver.get("messages/rides/ride_1/unread-count").await.expect(200).json();
    assert_eq!(unread["unreadCount"], 4);
    driver.get(&format!("messages/{}", other["id"].as_str().unwrap())).await.problem(404, "message_not_found");
    // Support reads all messages.
    assert_eq!(server.support().history("ride_1", "").await["messages"].as_array().unwrap().len(), 7);
}
