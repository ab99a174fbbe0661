//! Words that nearly every text of a language has. They tell the languages of one script apart, so scripts of one
//! language have no list.

use super::language::Language;

/// The function words of each language, in lower case and separated by spaces.
pub(super) const FUNCTION_WORDS: [(Language, &str); 32] = [
    (
        Language::English,
        "the of and to in is are was were be been has have had that this these those with for from by on at as it its \
         not or an a you your we our they their which who what when how can may must will would should if than then \
         there but all any each no",
    ),
    (
        Language::German,
        "der die das den dem des ein eine einen einem einer eines und oder nicht ist sind war wird werden wurde hat \
         haben kann muss auf für mit von vom zu zum zur bei beim nach aus über unter als auch sich sie er es wir ihr \
         nur noch wenn dass wie im an am um bis durch ohne kein keine",
    ),
    (
        Language::French,
        "le la les un une des du de et ou est sont été être a ont pour par avec sans sur dans en au aux ce cette \
         ces qui que quoi dont ne pas plus il elle ils elles nous vous votre notre leur se si tout tous chaque à son sa ses avant après fin cas peut doit",
    ),
    (
        Language::Spanish,
        "el la los las un una unos unas del de y o es son fue ser ha han para por con sin sobre en al este esta estos \
         que qué no más se su sus lo le les como cada cuando si muy ya hay puede debe desde hasta entre",
    ),
    (
        Language::Portuguese,
        "o a os as um uma do da dos das de e ou é são foi ser para por com sem sobre em no na nos nas ao aos à este \
         esta que não mais se seu sua seus como cada quando pelo pela até entre pode deve tem",
    ),
    (
        Language::Italian,
        "il lo la i gli le un uno una del dello della dei degli delle di e o è sono stato essere ha hanno per con \
         senza su sul sulla nel nella in al alla ai alle dal dalla questo questa che non più si come ogni quando può \
         deve entro chi anche ogni dopo prima nel meno",
    ),
    (
        Language::Dutch,
        "de het een en of is zijn was waren wordt worden heeft hebben kan moet voor van met zonder op in aan bij naar \
         uit over onder als ook niet geen dat die dit deze wie wat wanneer hoe je jij u uw wij ze hun er om te tot door",
    ),
    (
        Language::Swedish,
        "och att det som en ett den de är var har hade inte för med utan på i av till från om under över eller men \
         ska kan måste när hur vi ni du din ditt alla varje blir sig efter innan",
    ),
    (
        Language::Danish,
        "og at det som en et den de dem din er var har havde ret gives giver blev op ikke for med uden på i af til fra om under over eller men skal \
         kan må når hvordan vi du din dit jeres alle hver bliver sig efter før ved hvis",
    ),
    (
        Language::Norwegian,
        "og å det som etter hver hvert gir blir skal må til inntil en ei et den de er var har hadde ikke for med uten på i av til fra om under over eller men \
         skal kan må når hvordan vi du din ditt dere alle hver blir seg etter før ved hvis",
    ),
    (
        Language::Finnish,
        "ja tai ei on ovat oli ole olla se ne uudelleen tämä nämä joka jotka mutta kun jos että myös sekä vain kuin \
         voi voit pitää täytyy hän he me te sen niin ennen jälkeen kanssa ilman jokainen",
    ),
    (
        Language::Polish,
        "i w z na do od za po dla przez przy o nie jest są był być ma się że lub oraz ale jak który która które \
         ten ta to te tego jego jej ich każdy każdego można musi gdy jeśli bez pod nad przed",
    ),
    (
        Language::Czech,
        "a v ve z ze na do od za po pro při o ne je jsou byl být má se že nebo ale jak který která které ten ta \
         to jeho její jejich každý lze musí když pokud bez pod nad před podle k s sa nie sú alebo ktorý",
    ),
    (
        Language::Hungarian,
        "a az egy és vagy nem is van vannak volt lesz kell lehet hogy ha de mint csak minden meg el ki be ez ezt azt \
         akkor amely aki ami nincs sem után előtt nélkül szerint között alatt",
    ),
    (
        Language::Romanian,
        "și sau nu este sunt a fost fi are au la de din pe pentru prin cu fără în într un o unei unui care ce să se \
         mai dacă când cum acest această lui lor fiecare poate trebuie după până al ale",
    ),
    (
        Language::Turkish,
        "ve veya ile için bir bu şu o da de ki değil olan olarak var yok gibi kadar sonra önce her çok daha en ise \
         ya ne nasıl tüm olur edilir göre tarafından",
    ),
    (
        Language::Catalan,
        "el la els les un una uns unes del dels de i o és són ser ha han per amb sense sobre en al als aquest \
         aquesta que no més es seu seva com cada quan si pot cal ha fins entre heu podeu tot tota tots cada però també abans després hi",
    ),
    (
        Language::Indonesian,
        "yang dan atau di ke dari untuk pada dengan tanpa ini itu adalah tidak bukan akan telah sudah dapat harus bisa \
         setiap oleh dalam sebagai jika ketika karena kami anda mereka para juga lebih sebelum setelah",
    ),
    (
        Language::Estonian,
        "ja või ei on oli olla see need mis kes kuid kui et ka ning ainult tuleb saab peab iga tema nad meie teie \
         enne pärast koos ilma kuni selle oma",
    ),
    (
        Language::Lithuanian,
        "ir ar arba ne yra buvo būti kad kaip kuris kuri tai tas šis iš į su be po prie už dėl nuo iki apie bet jei kai \
         gali turi kiekvienas visi jo jos jų per pagal",
    ),
    (
        Language::Irish,
        "an na agus nó is tá bhí ní go le leis ar ag as do de faoi i sa san seo sin má nuair gach a mar chun ó roimh",
    ),
    (
        Language::Basque,
        "eta edo da dira zen ez du dute bat hau hori hura horrek bere baina ere ala behar daiteke izan da baino gabe \
         arte bakoitzak dago egin",
    ),
    (
        Language::Vietnamese,
        "và là của có không được cho trong với các những một này để khi từ đến phải người sẽ đã theo hoặc mỗi",
    ),
    (
        Language::Russian,
        "и в во на с со к по от из за для не что как или но если при до это был может можно который каждый",
    ),
    (
        Language::Ukrainian,
        "і й та у в на з зі до по від із за для не що як або чи але якщо при це був може можна який кожен",
    ),
    (
        Language::Bulgarian,
        "и в във на с със към по от за не че как или но ако при до това е са се ще да може който всеки",
    ),
    (
        Language::Serbian,
        "и у на са ка по од из за не да као или али ако при до је су се ће може који сваки \
         i u na sa od iz za ne da može biti kod posle nakon prema zbog kroz bez jer sve ovaj ova ovo kraju svakog svakom sam kao ili ali ako pri do je su se će može koji koja koje svaki nije kada",
    ),
    (Language::Arabic, "في من إلى على عن مع هذا هذه التي الذي أو أن إن لا ما كل بعد قبل غير بين ثم قد كان"),
    (Language::Persian, "و در به از که را با برای این آن است یا هر تا بر های می شود باید اگر هم نیست"),
    (Language::Urdu, "اور میں کے کی کا کو سے پر ہے ہیں یہ وہ نہیں اس کہ جو ہر یا نے"),
    (Language::Hindi, "और में के की का को से पर है हैं यह वह नहीं इस कि जो हर या ने लिए भी"),
    (Language::Nepali, "र मा को का लाई ले बाट छ छन् हो यो त्यो डैन अनि भए गर्न हुन्छ पनि भने"),
];
