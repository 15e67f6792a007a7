BEGIN TRANSACTION;
CREATE TABLE durable_flow_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT durable_flow_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "durable_flow_version" VALUES('0001');
CREATE TABLE journal (
	run BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	boundary BOOLEAN NOT NULL, 
	task BIGINT, 
	step TEXT, 
	name TEXT, 
	data TEXT, 
	codec TEXT, 
	payload BLOB, 
	seal TEXT, 
	v SMALLINT, 
	epoch BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	CONSTRAINT uq_journal_run_seq UNIQUE (run, seq)
);
INSERT INTO "journal" VALUES(1,1,'RunStarted',0,NULL,NULL,'Values','{"uid":"05cbc62625719abd61f75f32e88b22c5","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"Item\"]],\"end\":[[\"Item\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200000000);
INSERT INTO "journal" VALUES(1,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200000000);
INSERT INTO "journal" VALUES(1,3,'ContextSet',0,2,'begin','customer',NULL,'json',X'7B222474797065223A2274657374732E676F6C64656E2E70726F6772616D733A437573746F6D6572222C226E616D65223A22416461222C2273696E6365223A7B22246461746574696D65223A22323032342D30322D32395430303A30303A30302B30303A3030227D7D',NULL,NULL,1,1704067200006299);
INSERT INTO "journal" VALUES(1,4,'ContextSet',0,2,'begin','address',NULL,'json',X'7B222474797065223A2274657374732E676F6C64656E2E70726F6772616D733A41646472657373222C22737472656574223A224D61696E222C2274616773223A7B22247475706C65223A5B2261222C2262225D7D7D',NULL,NULL,1,1704067200006299);
INSERT INTO "journal" VALUES(1,5,'ContextSet',0,2,'begin','sum',NULL,'json',X'7B2224646563696D616C223A2231322E3530227D',NULL,NULL,1,1704067200006299);
INSERT INTO "journal" VALUES(1,6,'StreamPublished',0,2,'begin',NULL,'{"first":1,"digests":["85d14d7b1fe6379185","d7dbd0a72af8f0d008","0c135fb69d1eb96cc1"]}',NULL,NULL,NULL,NULL,1,1704067200006299);
INSERT INTO "journal" VALUES(1,7,'EventEmitted',0,2,'begin','Item','{"targets":["end"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A377D',NULL,1,1,1704067200006299);
INSERT INTO "journal" VALUES(1,8,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200006299);
INSERT INTO "journal" VALUES(1,9,'CallRecorded',1,7,'end','square','{"arguments":"3e9208720b540fb1239b739228aaaad9"}','json',X'3439',NULL,NULL,1,1704067200053893);
INSERT INTO "journal" VALUES(1,10,'StepCompleted',0,7,'end',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200070086);
INSERT INTO "journal" VALUES(1,11,'RunCompleted',1,7,'end','StopEvent',NULL,'json',X'7B22246576656E74223A2253746F704576656E74222C22726573756C74223A7B2273717561726564223A34392C2273756D223A7B2224646563696D616C223A2231322E3530227D7D7D',NULL,1,1,1704067200070086);
INSERT INTO "journal" VALUES(2,1,'RunStarted',0,NULL,NULL,'Asks','{"uid":"59fe5f7d24a8c85ee9e551536e16a230","shape":"{\"state\":null,\"steps\":{\"answered\":[[\"Answer\"],[\"StopEvent\"]],\"begin\":[[\"StartEvent\"],[\"Question\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200105304);
INSERT INTO "journal" VALUES(2,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200105304);
INSERT INTO "journal" VALUES(2,3,'ContextSet',0,2,'begin','greeting',NULL,'json',X'2248656C6C6F22',NULL,NULL,1,1704067200129395);
INSERT INTO "journal" VALUES(2,4,'EventEmitted',0,2,'begin','Question',NULL,'json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200129395);
INSERT INTO "journal" VALUES(2,5,'WaitOpened',0,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200129395);
INSERT INTO "journal" VALUES(2,6,'StreamPublished',0,NULL,NULL,NULL,'{"first":1,"digests":[""],"wait_id":"w5"}',NULL,NULL,NULL,NULL,1,1704067200129395);
INSERT INTO "journal" VALUES(2,7,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200129395);
INSERT INTO "journal" VALUES(3,1,'RunStarted',0,NULL,NULL,'AsksInside','{"uid":"b91ec74250e0606ab1fd90de212106d9","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200144122);
INSERT INTO "journal" VALUES(3,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200144122);
INSERT INTO "journal" VALUES(3,3,'CallRecorded',1,2,'begin','count','{"arguments":"c105a9e36c7c61235ce4a95f565998c7"}','json',X'31',NULL,NULL,1,1704067200146855);
INSERT INTO "journal" VALUES(3,4,'WaitOpened',0,2,'begin','Answer','{"wait_id":"w4","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A22313F227D',NULL,1,1,1704067200149804);
INSERT INTO "journal" VALUES(3,5,'StreamPublished',1,NULL,NULL,NULL,'{"first":1,"digests":[""],"wait_id":"w4"}',NULL,NULL,NULL,NULL,1,1704067200149804);
INSERT INTO "journal" VALUES(4,1,'RunStarted',0,NULL,NULL,'Splits','{"uid":"23742102fb28522579213652bd3077cb","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"Item\"]],\"join\":[[\"Done\"],[\"StopEvent\"],\"list\",0],\"work\":[[\"Item\"],[\"Done\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200156033);
INSERT INTO "journal" VALUES(4,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200156033);
INSERT INTO "journal" VALUES(4,3,'FanOutOpened',0,2,'begin',NULL,'{"joins":["join"],"takes":[0]}',NULL,NULL,NULL,NULL,1,1704067200158614);
INSERT INTO "journal" VALUES(4,4,'EventEmitted',0,2,'begin','Item','{"targets":["work"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A307D',NULL,1,1,1704067200158614);
INSERT INTO "journal" VALUES(4,5,'EventEmitted',0,2,'begin','Item','{"targets":["work"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A317D',NULL,1,1,1704067200158614);
INSERT INTO "journal" VALUES(4,6,'EventEmitted',0,2,'begin','Item','{"targets":["work"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A327D',NULL,1,1,1704067200158614);
INSERT INTO "journal" VALUES(4,7,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200158614);
INSERT INTO "journal" VALUES(4,8,'EventEmitted',0,4,'work','Done','{"joins":["join"]}','json',X'7B22246576656E74223A22446F6E65222C226E756D626572223A302C227072696365223A7B2224646563696D616C223A2230227D7D',NULL,1,1,1704067200161463);
INSERT INTO "journal" VALUES(4,9,'StepCompleted',1,4,'work',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200161463);
INSERT INTO "journal" VALUES(4,10,'WaitOpened',1,5,'work','item 1','{"wait_id":"w10","explicit":true,"wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}"}',NULL,NULL,NULL,NULL,1,1704067200161463);
INSERT INTO "journal" VALUES(4,11,'WaitOpened',1,6,'work','item 2','{"wait_id":"w11","explicit":true,"wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}"}',NULL,NULL,NULL,NULL,1,1704067200161463);
INSERT INTO "journal" VALUES(5,1,'RunStarted',0,NULL,NULL,'Retries','{"uid":"6b9225d45543b6f5a7be97f80aa36a42","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200167296);
INSERT INTO "journal" VALUES(5,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200167296);
INSERT INTO "journal" VALUES(5,3,'ContextSet',0,2,'begin','tries',NULL,'json',X'31',NULL,NULL,1,1704067200170562);
INSERT INTO "journal" VALUES(5,4,'StepFailed',1,2,'begin',NULL,'{"error":["builtins.ConnectionError","not yet","Traceback (most recent call last):\n  File \"/app/durable_flow/engine/attempt.py\", line 46, in make_attempt\n    result = await run.program.call(step, event, execution, given)\n             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/app/tests/golden/programs.py\", line 146, in begin\n    raise ConnectionError(\"not yet\")\nConnectionError: not yet\n"],"retry_at":1704067260169464,"began_at":1704067200169218,"exception":["json",0]}',NULL,X'7B2274797065223A226275696C74696E733A436F6E6E656374696F6E4572726F72222C226D657373616765223A226E6F7420796574222C22617267756D656E7473223A5B226E6F7420796574225D2C2261747472696275746573223A7B7D7D',NULL,NULL,1,1704067200170562);
INSERT INTO "journal" VALUES(6,1,'RunStarted',0,NULL,NULL,'Sleeps','{"uid":"cf99911a1707a4fbb6b3c0cd1fe56f53","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200177958);
INSERT INTO "journal" VALUES(6,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200177958);
INSERT INTO "journal" VALUES(6,3,'ContextSet',0,2,'begin','before',NULL,'json',X'2273657422',NULL,NULL,1,1704067200180275);
INSERT INTO "journal" VALUES(6,4,'TimerSet',1,2,'begin',NULL,'{"due_at":1704067260179996}',NULL,NULL,NULL,NULL,1,1704067200180275);
INSERT INTO "journal" VALUES(7,1,'RunStarted',0,NULL,NULL,'Fails','{"uid":"7f8a6ae89633020e65af3ef958d73f30","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"Item\"]],\"work\":[[\"Item\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200188013);
INSERT INTO "journal" VALUES(7,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200188013);
INSERT INTO "journal" VALUES(7,3,'EventEmitted',0,2,'begin','Item','{"targets":["work"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A357D',NULL,1,1,1704067200190379);
INSERT INTO "journal" VALUES(7,4,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200190379);
INSERT INTO "journal" VALUES(7,5,'StepFailed',0,3,'work',NULL,'{"error":["builtins.ValueError","broken","Traceback (most recent call last):\n  File \"/app/durable_flow/engine/attempt.py\", line 46, in make_attempt\n    result = await run.program.call(step, event, execution, given)\n             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/app/tests/golden/programs.py\", line 172, in work\n    raise ValueError(\"broken\")\nValueError: broken\n"],"began_at":1704067200192576}',NULL,NULL,NULL,NULL,1,1704067200193117);
INSERT INTO "journal" VALUES(7,6,'RunFailed',1,NULL,NULL,NULL,'{"error":["builtins.ValueError","broken","Traceback (most recent call last):\n  File \"/app/durable_flow/engine/attempt.py\", line 46, in make_attempt\n    result = await run.program.call(step, event, execution, given)\n             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/app/tests/golden/programs.py\", line 172, in work\n    raise ValueError(\"broken\")\nValueError: broken\n"],"step":"work"}',NULL,NULL,NULL,NULL,1,1704067200193117);
INSERT INTO "journal" VALUES(8,1,'RunStarted',0,NULL,NULL,'Collects','{"uid":"c8f51465ebaeadab47c6685264db4268","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"Item\"]],\"pair\":[[\"Item\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200198641);
INSERT INTO "journal" VALUES(8,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200198641);
INSERT INTO "journal" VALUES(8,3,'EventEmitted',0,2,'begin','Item','{"k":0,"targets":["pair"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A307D',NULL,1,1,1704067200200927);
INSERT INTO "journal" VALUES(8,4,'EventEmitted',0,2,'begin','Item','{"k":1,"targets":["pair"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A317D',NULL,1,1,1704067200200927);
INSERT INTO "journal" VALUES(8,5,'EventEmitted',0,2,'begin','Item','{"k":2,"targets":["pair"]}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A327D',NULL,1,1,1704067200200927);
INSERT INTO "journal" VALUES(8,6,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200200927);
INSERT INTO "journal" VALUES(8,7,'EventCollected',0,3,'pair','Item','{"buffer":"pair"}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A307D',NULL,1,1,1704067200203402);
INSERT INTO "journal" VALUES(8,8,'StepCompleted',1,3,'pair',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200203402);
INSERT INTO "journal" VALUES(8,9,'EventCollected',0,4,'pair','Item','{"buffer":"pair"}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A317D',NULL,1,1,1704067200204510);
INSERT INTO "journal" VALUES(8,10,'BufferReleased',0,4,'pair','pair','{"events":["Item","Item"]}',NULL,NULL,NULL,NULL,1,1704067200204510);
INSERT INTO "journal" VALUES(8,11,'ContextSet',0,4,'pair','pairs',NULL,'json',X'5B5B302C315D5D',NULL,NULL,1,1704067200204510);
INSERT INTO "journal" VALUES(8,12,'StepCompleted',1,4,'pair',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200204510);
INSERT INTO "journal" VALUES(8,13,'EventCollected',0,5,'pair','Item','{"buffer":"pair"}','json',X'7B22246576656E74223A224974656D222C226E756D626572223A327D',NULL,1,1,1704067200207012);
INSERT INTO "journal" VALUES(8,14,'StepCompleted',1,5,'pair',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200207012);
INSERT INTO "journal" VALUES(9,1,'RunStarted',0,NULL,NULL,'Parent','{"uid":"f768e45800dea002dcdcd5c094127ef7","shape":"{\"state\":null,\"steps\":{\"begin\":[[\"StartEvent\"],[\"StopEvent\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200219969);
INSERT INTO "journal" VALUES(9,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200219969);
INSERT INTO "journal" VALUES(9,3,'ChildStarted',1,2,'begin','Asks','{"run_id":"parent.511748fe013069232704"}','json',X'7B7D',NULL,NULL,1,1704067200224854);
INSERT INTO "journal" VALUES(10,1,'RunStarted',0,NULL,NULL,'Asks','{"uid":"8a528344da350d219df87aae9f2db681","shape":"{\"state\":null,\"steps\":{\"answered\":[[\"Answer\"],[\"StopEvent\"]],\"begin\":[[\"StartEvent\"],[\"Question\"]]}}","parent":"parent"}','json',X'7B7D',NULL,NULL,1,1704067200229182);
INSERT INTO "journal" VALUES(10,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200229182);
INSERT INTO "journal" VALUES(10,3,'ContextSet',0,2,'begin','greeting',NULL,'json',X'2248656C6C6F22',NULL,NULL,1,1704067200230464);
INSERT INTO "journal" VALUES(10,4,'EventEmitted',0,2,'begin','Question',NULL,'json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200230464);
INSERT INTO "journal" VALUES(10,5,'WaitOpened',0,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200230464);
INSERT INTO "journal" VALUES(10,6,'StreamPublished',0,NULL,NULL,NULL,'{"first":1,"digests":[""],"wait_id":"w5"}',NULL,NULL,NULL,NULL,1,1704067200230464);
INSERT INTO "journal" VALUES(10,7,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200230464);
INSERT INTO "journal" VALUES(9,4,'ChildAsked',0,NULL,NULL,NULL,'{"child":3,"position":1}',NULL,NULL,NULL,NULL,1,1704067200231702);
INSERT INTO "journal" VALUES(9,5,'StreamPublished',1,NULL,NULL,NULL,'{"first":1,"digests":[""],"wait_id":"parent.511748fe013069232704/w5"}',NULL,NULL,NULL,NULL,1,1704067200231702);
INSERT INTO "journal" VALUES(11,1,'RunStarted',0,NULL,NULL,'Asks','{"uid":"9b4619bd8db70476d0935b7b262f6953","shape":"{\"state\":null,\"steps\":{\"answered\":[[\"Answer\"],[\"StopEvent\"]],\"begin\":[[\"StartEvent\"],[\"Question\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200237714);
INSERT INTO "journal" VALUES(11,2,'EventEmitted',1,NULL,NULL,'StartEvent','{"targets":["begin"]}','json',X'7B22246576656E74223A2253746172744576656E74227D',NULL,1,1,1704067200237714);
INSERT INTO "journal" VALUES(11,3,'ContextSet',0,2,'begin','greeting',NULL,'json',X'2248656C6C6F22',NULL,NULL,1,1704067200239862);
INSERT INTO "journal" VALUES(11,4,'EventEmitted',0,2,'begin','Question',NULL,'json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200239862);
INSERT INTO "journal" VALUES(11,5,'WaitOpened',0,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,1704067200239862);
INSERT INTO "journal" VALUES(11,6,'StreamPublished',0,NULL,NULL,NULL,'{"first":1,"digests":[""],"wait_id":"w5"}',NULL,NULL,NULL,NULL,1,1704067200239862);
INSERT INTO "journal" VALUES(11,7,'StepCompleted',1,2,'begin',NULL,NULL,NULL,NULL,NULL,NULL,1,1704067200239862);
INSERT INTO "journal" VALUES(11,8,'RunCancelled',1,NULL,NULL,NULL,'{"reason":"cancelled by its handler"}',NULL,NULL,NULL,NULL,1,1704067200250148);
INSERT INTO "journal" VALUES(12,1,'RunStarted',0,NULL,NULL,'Asks','{"uid":"a26c604663f089c68fba3101b90bcdd0","shape":"{\"state\":null,\"steps\":{\"answered\":[[\"Answer\"],[\"StopEvent\"]],\"begin\":[[\"StartEvent\"],[\"Question\"]]}}"}','json',X'7B7D',NULL,NULL,1,1704067200251914);
INSERT INTO "journal" VALUES(12,2,'StateImported',1,NULL,NULL,'9b4619bd8db70476d0935b7b262f6953','{"seq":7}','json',X'7B2276657273696F6E223A312C22776F726B666C6F77223A2241736B73222C22756964223A223962343631396264386462373034373664303933356237623236326636393533222C227368617065223A227B5C2273746174655C223A6E756C6C2C5C2273746570735C223A7B5C22616E7377657265645C223A5B5B5C22416E737765725C225D2C5B5C2253746F704576656E745C225D5D2C5C22626567696E5C223A5B5B5C2253746172744576656E745C225D2C5B5C225175657374696F6E5C225D5D7D7D222C22617267756D656E7473223A5B226A736F6E222C227B7D225D2C22736571223A372C22626F756E64617279223A372C2265706F6368223A312C22637265617465645F6174223A313730343036373230303233373731342C226C6173745F6174223A313730343036373230303233393836322C226163746976655F7573223A323134382C22636F6E74657874223A5B5B226772656574696E67222C5B226A736F6E222C225C2248656C6C6F5C22225D5D5D2C2272756E6E61626C65223A5B5B22626567696E222C5B5D5D5D2C227761697473223A5B5B227735222C7B22776169745F6964223A227735222C227461736B223A6E756C6C2C22617474656D7074223A302C2277616E746564223A5B22416E73776572225D2C22726571756972656D656E7473223A6E756C6C2C22646561646C696E65223A6E756C6C2C2270726F6D7074223A5B225175657374696F6E222C226A736F6E222C312C227B5C22246576656E745C223A5C225175657374696F6E5C222C5C22746578745C223A5C2257686F3F5C227D225D2C2268756D616E223A747275652C226F70656E65645F6174223A313730343036373230303233393836322C22736368656D61223A227B5C226164646974696F6E616C50726F706572746965735C223A20747275652C205C2270726F706572746965735C223A207B5C22746578745C223A207B5C227469746C655C223A205C22546578745C222C205C22747970655C223A205C22737472696E675C227D7D2C205C2272657175697265645C223A205B5C22746578745C225D2C205C227469746C655C223A205C22416E737765725C222C205C22747970655C223A205C226F626A6563745C227D227D5D5D2C22706F736974696F6E223A312C2273746570735F636F6D706C65746564223A317D',NULL,NULL,1,1704067200251914);
CREATE TABLE maintenance (
	task TEXT NOT NULL, 
	since BIGINT NOT NULL, 
	CONSTRAINT pk_maintenance PRIMARY KEY (task)
);
CREATE TABLE messages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run BIGINT NOT NULL, 
	message_id TEXT, 
	kind TEXT NOT NULL, 
	name TEXT, 
	codec TEXT, 
	payload BLOB, 
	seal TEXT, 
	v SMALLINT, 
	wait_id TEXT, 
	step TEXT, 
	reason TEXT, 
	sent_at BIGINT NOT NULL, 
	consumed_seq BIGINT, 
	undelivered_at BIGINT, 
	CONSTRAINT uq_messages_run_message_id UNIQUE (run, message_id)
);
CREATE TABLE runs (
	run INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id TEXT NOT NULL, 
	uid TEXT NOT NULL, 
	workflow TEXT NOT NULL, 
	shape TEXT NOT NULL, 
	status TEXT NOT NULL, 
	epoch BIGINT NOT NULL, 
	owner TEXT, 
	wake_at BIGINT, 
	parent BIGINT, 
	parent_seq BIGINT, 
	tags TEXT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	finished_at BIGINT, 
	error TEXT, 
	CONSTRAINT uq_runs_run_id UNIQUE (run_id)
);
INSERT INTO "runs" VALUES(1,'finished','05cbc62625719abd61f75f32e88b22c5','Values','06b46a29bd2960c2','completed',1,NULL,NULL,NULL,NULL,NULL,1704067200000187,1704067200070279,1704067200070279,NULL);
INSERT INTO "runs" VALUES(2,'asks','59fe5f7d24a8c85ee9e551536e16a230','Asks','0f00b457b8c63a28','waiting',1,NULL,NULL,NULL,NULL,NULL,1704067200105458,1704067200129754,NULL,NULL);
INSERT INTO "runs" VALUES(3,'asks-inside','b91ec74250e0606ab1fd90de212106d9','AsksInside','7420b8634dd8ea7b','waiting',1,NULL,NULL,NULL,NULL,NULL,1704067200144240,1704067201257350,NULL,NULL);
INSERT INTO "runs" VALUES(4,'fan-out','23742102fb28522579213652bd3077cb','Splits','aea5d7ee930d93c2','waiting',1,NULL,NULL,NULL,NULL,NULL,1704067200156134,1704067201257223,NULL,NULL);
INSERT INTO "runs" VALUES(5,'retry','6b9225d45543b6f5a7be97f80aa36a42','Retries','7420b8634dd8ea7b','running',1,NULL,NULL,NULL,NULL,NULL,1704067200167383,1704067200167383,NULL,NULL);
INSERT INTO "runs" VALUES(6,'sleeps','cf99911a1707a4fbb6b3c0cd1fe56f53','Sleeps','7420b8634dd8ea7b','waiting',1,NULL,1704067260179996,NULL,NULL,NULL,1704067200178046,1704067201257300,NULL,NULL);
INSERT INTO "runs" VALUES(7,'failed','7f8a6ae89633020e65af3ef958d73f30','Fails','27bbfe686f023635','failed',1,NULL,NULL,NULL,NULL,NULL,1704067200188105,1704067200193247,1704067200193247,'builtins.ValueError: broken');
INSERT INTO "runs" VALUES(8,'buffer','c8f51465ebaeadab47c6685264db4268','Collects','ac17117ed1e917e1','running',1,NULL,NULL,NULL,NULL,NULL,1704067200198720,1704067200198720,NULL,NULL);
INSERT INTO "runs" VALUES(9,'parent','f768e45800dea002dcdcd5c094127ef7','Parent','7420b8634dd8ea7b','running',1,NULL,NULL,NULL,NULL,NULL,1704067200220061,1704067201257336,NULL,NULL);
INSERT INTO "runs" VALUES(10,'parent.511748fe013069232704','8a528344da350d219df87aae9f2db681','Asks','0f00b457b8c63a28','waiting',1,NULL,NULL,NULL,NULL,NULL,1704067200229268,1704067201257318,NULL,NULL);
INSERT INTO "runs" VALUES(11,'exported','9b4619bd8db70476d0935b7b262f6953','Asks','0f00b457b8c63a28','cancelled',1,NULL,NULL,NULL,NULL,NULL,1704067200237800,1704067200250271,1704067200250271,NULL);
INSERT INTO "runs" VALUES(12,'imported','a26c604663f089c68fba3101b90bcdd0','Asks','0f00b457b8c63a28','waiting',1,NULL,NULL,NULL,NULL,NULL,1704067200252224,1704067200252224,NULL,NULL);
CREATE TABLE snapshots (
	run BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	fold_version INTEGER NOT NULL, 
	hash TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	seal TEXT, 
	at BIGINT NOT NULL, 
	CONSTRAINT pk_snapshots PRIMARY KEY (run, seq)
);
CREATE TABLE stream (
	run BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	step TEXT, 
	name TEXT, 
	codec TEXT, 
	payload BLOB, 
	seal TEXT, 
	v SMALLINT, 
	wait_id TEXT, 
	reset_since BIGINT, 
	task BIGINT, 
	CONSTRAINT uq_stream_run_position UNIQUE (run, position)
);
INSERT INTO "stream" VALUES(1,1,1704067200006299,'begin','Item','json',X'7B22246576656E74223A224974656D222C226E756D626572223A307D',NULL,1,NULL,NULL,2);
INSERT INTO "stream" VALUES(1,2,1704067200006299,'begin','Item','json',X'7B22246576656E74223A224974656D222C226E756D626572223A317D',NULL,1,NULL,NULL,2);
INSERT INTO "stream" VALUES(1,3,1704067200006299,'begin','Item','json',X'7B22246576656E74223A224974656D222C226E756D626572223A327D',NULL,1,NULL,NULL,2);
INSERT INTO "stream" VALUES(2,1,1704067200129395,NULL,'Question','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,'w5',NULL,NULL);
INSERT INTO "stream" VALUES(3,1,1704067200149804,NULL,'Question','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A22313F227D',NULL,1,'w4',NULL,NULL);
INSERT INTO "stream" VALUES(10,1,1704067200230464,NULL,'Question','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,'w5',NULL,NULL);
INSERT INTO "stream" VALUES(9,1,1704067200231702,NULL,'Question','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,'parent.511748fe013069232704/w5',NULL,NULL);
INSERT INTO "stream" VALUES(11,1,1704067200239862,NULL,'Question','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,'w5',NULL,NULL);
CREATE TABLE waits (
	run BIGINT NOT NULL, 
	wait_id TEXT NOT NULL, 
	seq BIGINT NOT NULL, 
	task BIGINT, 
	step TEXT, 
	name TEXT, 
	data TEXT, 
	codec TEXT, 
	payload BLOB, 
	seal TEXT, 
	v SMALLINT, 
	human BOOLEAN NOT NULL, 
	deadline BIGINT, 
	opened_at BIGINT NOT NULL, 
	outcome TEXT, 
	CONSTRAINT pk_waits PRIMARY KEY (run, wait_id)
);
INSERT INTO "waits" VALUES(2,'w5',5,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,NULL,1704067200129395,NULL);
INSERT INTO "waits" VALUES(3,'w4',4,2,'begin','Answer','{"wait_id":"w4","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A22313F227D',NULL,1,1,NULL,1704067200149804,NULL);
INSERT INTO "waits" VALUES(4,'w10',10,5,'work','item 1','{"wait_id":"w10","explicit":true,"wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}"}',NULL,NULL,NULL,NULL,1,NULL,1704067200161463,NULL);
INSERT INTO "waits" VALUES(4,'w11',11,6,'work','item 2','{"wait_id":"w11","explicit":true,"wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}"}',NULL,NULL,NULL,NULL,1,NULL,1704067200161463,NULL);
INSERT INTO "waits" VALUES(10,'w5',5,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,NULL,1704067200230464,NULL);
INSERT INTO "waits" VALUES(11,'w5',5,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,NULL,1704067200239862,'ended');
INSERT INTO "waits" VALUES(12,'w5',2,NULL,NULL,'Answer','{"wait_id":"w5","wanted":["Answer"],"human":true,"schema":"{\"additionalProperties\": true, \"properties\": {\"text\": {\"title\": \"Text\", \"type\": \"string\"}}, \"required\": [\"text\"], \"title\": \"Answer\", \"type\": \"object\"}","prompt":"Question"}','json',X'7B22246576656E74223A225175657374696F6E222C2274657874223A2257686F3F227D',NULL,1,1,NULL,1704067200239862,NULL);
CREATE TABLE workers (
	id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	boot TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	pid BIGINT NOT NULL, 
	started BIGINT NOT NULL, 
	heartbeat_at BIGINT NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_runs_unfinished ON runs (workflow) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX uq_messages_answer ON messages (run, wait_id) WHERE wait_id IS NOT NULL AND consumed_seq IS NULL;
CREATE INDEX ix_messages_unconsumed ON messages (run) WHERE consumed_seq IS NULL AND undelivered_at IS NULL;
CREATE INDEX ix_waits_open ON waits (opened_at) WHERE outcome IS NULL;
CREATE TRIGGER journal_is_final BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is final: its records are never changed'); END;
CREATE TRIGGER journal_is_kept BEFORE DELETE ON journal WHEN NOT EXISTS (SELECT 1 FROM maintenance) BEGIN SELECT RAISE(ABORT, 'the journal is kept: only prune may delete its records'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',12);
COMMIT;
