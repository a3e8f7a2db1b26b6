package diego_test

import "muster/integration/diego"

// The messages of the tests, by their numbers in the tables of the wire contract.

// m begins a message.
func m() diego.Message { return diego.Message{} }

// run is an action that runs a program.
func run(path string, args ...string) diego.Message {
	return m().Message(3, m().Text(1, path).Texts(2, args...).Text(6, "vcap"))
}

// routes are those of one router group, as Cloud Controller writes them.
const routes = `[{"hostnames":["a.example.com"],"port":8080,"route_service_url":null,"isolation_segment":"","protocol":"http1"}]`

// desired is a DesiredLRP with the fewest fields.
func desired(process string, instances int64) diego.Message {
	return m().Text(1, process).Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Number(4, instances).
		Message(7, run("/bin/app")).EntryMessage(35, "source_id", m().Text(1, "s"))
}

// key is an ActualLRPKey, instance an ActualLRPInstanceKey.
func key(process string, index int64) diego.Message {
	return m().Text(1, process).Number(2, index).Text(3, "cf-apps")
}

func instance(guid, cell string) diego.Message { return m().Text(1, guid).Text(2, cell) }

// net4 is where an instance can be reached.
func net4() diego.Message {
	return m().Text(1, "10.0.0.1").Message(2, m().Number(1, 8080).Number(2, 61001).Number(3, 61443).Number(4, 61002)).
		Text(3, "10.255.0.2").Number(4, 2)
}

// claim, start and crash are the requests of a cell.
func claim(process string, index int64, by diego.Message) diego.Message {
	return m().Text(1, process).Number(2, index).Message(3, by)
}

func start(process string, index int64, by diego.Message) diego.Message {
	return m().Message(1, key(process, index)).Message(2, by).Message(3, net4())
}

func crash(process string, index int64, by diego.Message, reason string) diego.Message {
	return m().Message(1, key(process, index)).Message(2, by).Text(3, reason)
}

// of is a request that names nothing but an instance.
func of(process string, index int64, by diego.Message) diego.Message {
	return m().Message(1, key(process, index)).Message(2, by)
}

// task is a request to run a task.
func task(guid string) diego.Message {
	return m().Message(1, m().Text(1, "preloaded:cflinuxfs4").Message(3, run("/bin/echo")).Text(11, "/result").Text(13, "mine")).
		Text(2, guid).Text(3, "cf-tasks")
}

// guid is a request that names nothing but a process or a task.
func guid(g string) diego.Message { return m().Text(1, g) }

// failed is a response with an error.
func failed(kind int64, text string) diego.Message {
	return m().Message(1, m().Number(1, kind).Text(2, text))
}
